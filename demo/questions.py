"""Questions about a phantom, in the style of VQA-RAD and SLAKE, with answers true by construction.

A wording is a pattern: `(a|b|)` stands for one of its parts, drawn at random. Each topic has patterns to train on and
others that are held out: no sentence that a held-out pattern gives is in the training set.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phantoms import KINDS, SIZES, Lesion, Phantom

Rng = np.random.Generator
COUNTS = ("no", "one", "two")
NAMES = {  # as a question may call a finding; the answer always uses the first
    "cyst": ("cyst", "simple cyst", "fluid-filled cyst"),
    "gallstone": ("gallstone", "stone", "gallbladder stone"),
    "hypoechoic mass": ("hypoechoic mass", "hypoechoic lesion", "hypoechoic nodule", "dark solid mass"),
    "hyperechoic mass": ("hyperechoic mass", "hyperechoic lesion", "hyperechoic nodule", "bright solid mass"),
}


@dataclass(frozen=True)
class Question:
    topic: str
    text: str
    closed: bool
    answer: str  # what is scored: the key words of an open answer, the whole of a closed one
    sentence: str  # what the model is taught to say


# topic -> (wordings to train on, wordings held out). FIND is "lesion", IT one certain finding, KIND a name, SIDE left/right.
_PIC = "(image|picture|scan|ultrasound|ultrasound image|sonogram|study|frame|B-mode image|US image)"
_SEE = "(seen|visible|shown|present|visualized|identified|found|depicted|detected|noted|observed|evident)"
_FIND = "(lesion|abnormality|finding|focal lesion|pathology)"
_FINDS = "(lesions|abnormalities|findings|focal lesions)"
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "report": ((f"(Describe|Report on|Summarize|Interpret) (the|this) {_PIC}.", f"(Write|Give|Provide) a (short |brief |)(report|description) (of|for) (the|this) {_PIC}.",
                f"What (does|can) (the|this) {_PIC} show?", f"(Please describe|Please report) (the|this) {_PIC}.", f"What (is|can be) seen (in|on) (the|this) {_PIC}?"),
               (f"(Provide|Write) a (brief |)(summary|report) of what this {_PIC} shows.", f"Describe what is {_SEE} in this {_PIC}.")),
    "abnormal": ((f"Is there (a|any|evidence of a) {_FIND} (in|on) (the|this) {_PIC}?", f"Does (the|this) {_PIC} (show|contain|have) (a|any) {_FIND}?",
                  f"Is (a|any) {_FIND} {_SEE}( in the {_PIC}|)?", f"Are (there any|any) {_FINDS} {_SEE}?", f"Is (the|this) {_PIC} abnormal?", f"(Do|Can) you see (a|any) {_FIND}?", f"Is there (anything|something) (abnormal|wrong|pathological)( {_SEE}| here| in the {_PIC}|)?", "Is any abnormality present, yes or no?"),
                 (f"Can (a|any) {_FIND} be {_SEE} (in|on) this {_PIC}?", f"Is there any {_FIND} {_SEE} here?")),
    "normal": ((f"Is (the|this) {_PIC} normal?", f"Does (the|this) {_PIC} (look|appear) normal?", f"Is this a normal {_PIC}?", f"Is (the|this) {_PIC} (free of|without) {_FINDS}?",
                f"(Is the (organ|tissue|liver|parenchyma) normal|Does the (organ|tissue|liver|parenchyma) (look|appear) normal)( here|)?", f"Is everything (normal|fine|in order)?"),
               (f"Would you call this {_PIC} normal?", f"Is everything normal (in|on) this {_PIC}?", f"Can this {_PIC} be called normal?")),
    "kind?": ((f"Is there a KIND( in the {_PIC}|)?", f"Is a KIND {_SEE}( in the {_PIC}|)?", f"Does (the|this) {_PIC} (show|contain|have) a KIND?", f"(Do|Can) you see a KIND?",
               f"Is there (any |)evidence of a KIND?", f"Does the patient have a KIND?", f"Is the {_FIND} a KIND?", f"Could (this|it) be a KIND?", f"Is (this|it) a KIND?"),
              (f"Can a KIND be {_SEE} (in|on) this {_PIC}?", f"Is any KIND {_SEE} here?")),
    "kind side?": ((f"Is there a KIND on the SIDE( side|)?", f"Is a KIND {_SEE} on the SIDE( side|)?", f"Does the SIDE side (of the {_PIC} |)(show|contain|have) a KIND?",
                    f"Is there a KIND (in the SIDE half|on the SIDE side of the {_PIC})?", f"Is the {_FIND} on the SIDE a KIND?", "Do you see a KIND (on|in|at) the SIDE( side| half|)?"),
                   (f"Can you see a KIND (on the SIDE side|on the SIDE of the {_PIC})?", f"Is any KIND {_SEE} on the SIDE?")),
    "several?": ((f"Is there more than one {_FIND}?", f"Are there (two|multiple|several) {_FINDS}( {_SEE}|)?", f"Does (the|this) {_PIC} (show|contain) (more than one {_FIND}|two {_FINDS})?", f"(Is|Are) there (at least two|two or more) {_FINDS}?", "Is there a second lesion?"),
                 (f"Can you see more than one {_FIND} here?", f"Are multiple {_FINDS} {_SEE}?")),
    "side?": (("Is IT (on|to) the left or (on |to |)the right?", f"Is IT (on|in) the left or right (side|half)( of the {_PIC}|)?", f"Which side is IT on, left or right?",
               "Does IT lie on the left or (on |)the right( side|)?", "(On which side|Where) (is IT|does IT lie), (left or right|on the left or on the right)?", f"Which (half|side) of the {_PIC} (contains|shows) IT: left or right?"),
              (f"Left or right: which side of the {_PIC} is IT on?", "Is IT located on the left or right?")),
    "cystic?": (("Is IT cystic or solid?", "Is IT solid or cystic?", "Does IT (look|appear) (cystic or solid|solid or cystic)?", "Would you call IT (cystic or solid|solid or cystic)?", "Is IT more likely (cystic or solid|solid or cystic)?", "(What is|Which describes) IT: (cystic or solid|solid or cystic)?", "Is IT a (cystic or solid|solid or cystic) lesion?"),
                (f"Cystic or solid: what is IT?", "Is IT a cystic or a solid finding?")),
    "echo?": (("Is IT (hypoechoic or hyperechoic|hyperechoic or hypoechoic)?", "Does IT (look|appear) (hypoechoic or hyperechoic|hyperechoic or hypoechoic)?",
               "Would you call IT (hypoechoic or hyperechoic|hyperechoic or hypoechoic)?", "Is IT more (hypoechoic or hyperechoic|hyperechoic or hypoechoic)?", "(What is|Which describes) IT: (hypoechoic or hyperechoic|hyperechoic or hypoechoic)?"),
              ("Hypoechoic or hyperechoic: what is IT?", "Is the echogenicity of IT hypoechoic or hyperechoic?")),
    "shadow?": ((f"Is there (an |any |)(acoustic |posterior |)(shadow|shadowing)( {_SEE}| in the {_PIC}|)?", f"Does (the|this) {_PIC} (show|contain) (an acoustic shadow|acoustic shadowing|shadowing)?",
                 f"Is (acoustic|posterior) shadowing {_SEE}?", "Does any lesion cast a shadow?"),
                (f"Can (acoustic |)shadowing be {_SEE}?", f"Do you see (an acoustic shadow|acoustic shadowing) (in|on) this {_PIC}?")),
    "caption?": ((f"Is there (any |)(text|a caption|an annotation|writing) (burned into|in|on) (the|this) {_PIC}?", f"Does (the|this) {_PIC} (have|contain|show) (a caption|any text|an annotation|text)?",
                  f"Is (a caption|any text|an annotation|text) {_SEE}?", f"(Do|Can) you see (a caption|any text|an annotation)?", f"Is a (burned-in |)caption {_SEE}( in the {_PIC}|)?"),
                 (f"Can (any text|a caption) be {_SEE} (in|on) this {_PIC}?", f"Is there (a caption|an annotation) {_SEE} here?")),
    "deeper?": (("Is IT deeper than NUM cm?", "Does IT lie (deeper than|more than) NUM cm deep?", "Is the depth of IT (more|greater) than NUM cm?", "Is IT more than NUM cm deep?", "Is IT (found|located|seen) (deeper than|below) NUM cm?", "Does the depth of IT exceed NUM cm?"),
                ("Does IT lie deeper than NUM cm?", "Is IT at a depth of more than NUM cm?")),
    "larger?": (("Is IT larger than NUM mm?", "Is IT (bigger|more) than NUM mm( in size|)?", "Is the (size|diameter) of IT (more|greater) than NUM mm?", "Does IT measure more than NUM mm?", "Does the (size|diameter) of IT exceed NUM mm?", "Is IT greater than NUM mm?"),
                ("Does IT have a (size|diameter) of more than NUM mm?", "Is the diameter of IT larger than NUM mm?")),
    "what": ((f"What (abnormality|lesion|finding|pathology) is {_SEE}( in the {_PIC}|)?", f"What (kind|type) of (lesion|abnormality|finding) is {_SEE}( in the {_PIC}|)?",
              f"What is the (diagnosis|abnormality|finding)( in the {_PIC}|)?", f"Which (abnormality|lesion|finding) (is {_SEE}|does the {_PIC} show)?", "What is wrong (here|in the image)?", f"(Name|Identify|State) the (abnormality|lesion|pathology|finding)( in the {_PIC}|).", "What is your diagnosis?", f"What pathology does (the|this) {_PIC} (show|contain)?"),
             (f"Which (kind|type) of (lesion|abnormality) (is|can be) {_SEE} (in|on) this {_PIC}?", f"What (abnormality|lesion) do you see (here|in this {_PIC})?")),
    "what side": ((f"What is {_SEE} on the SIDE( side|)( of the {_PIC}|)?", f"What (abnormality|lesion|finding) is (on|{_SEE} on) the SIDE( side|)?", "What (is|lies) on the SIDE( side|)?",
                   f"What (kind|type) of (lesion|finding) is on the SIDE( side|)?", f"(Name|Identify) the (lesion|finding|abnormality) on the SIDE( side|).", "Which (lesion|finding) (is|lies) on the SIDE( side|)?", f"What does the SIDE (side|half) of the {_PIC} show?"),
                  (f"Which (abnormality|lesion) is {_SEE} on the SIDE( side|)?", "What do you see on the SIDE( side|)?")),
    "count": ((f"How many {_FINDS} are (there|{_SEE})( in the {_PIC}|)?", f"What is the number of {_FINDS}?", f"How many {_FINDS} (does the {_PIC} (show|contain)|(do|can) you see)?", f"Count the {_FINDS}.", f"(State|Tell me) the number of {_FINDS}( in the {_PIC}|)."),
              (f"How many {_FINDS} can be {_SEE} (in|on) this {_PIC}?", f"Give the number of {_FINDS} {_SEE}.")),
    "where": (("Where is IT( located|)?", "On (which|what) side is IT?", f"(Which|What) side (of the {_PIC} |)is IT on?", f"Where (in the {_PIC} |)does IT lie?", "What is the (location|position) of IT?", "(Locate|Localize) IT.", f"In (which|what) (half|part) of the {_PIC} is IT( located|)?", "(State|Give) the (side|location|position) of IT."),
              ("On which side does IT lie?", f"Where (in|on) this {_PIC} is IT {_SEE}?")),
    "depth": (("How deep is IT?", "(At|In) what depth (is|does) IT( lie|)?", "What is the depth of IT( in cm|)?", "How (far|deep) below the (skin|surface|probe) is IT?", "How many centimeters deep is IT?",
               "(Give|Estimate|Measure|State) the depth of IT( in cm|).","What depth does IT have?", "How many cm deep is IT( located|)?", "At what depth (can IT be seen|is IT located)?"),
              ("How deep does IT lie?", "At which depth is IT (located|found)?")),
    "size": (("How (large|big) is IT?", "What is the (size|diameter|extent) of IT( in mm|)?", "What does IT measure?", "How many millimeters (large|wide) is IT?", "(Give|Estimate|Measure|State) the (size|diameter) of IT( in mm|).", "How many mm does IT measure?", "How wide is IT?", "What (is|are) the (dimensions|measurements) of IT?"),
             ("What size is IT?", "How (large|big) is the diameter of IT?")),
    "range": ((f"What is the (imaging|scan|total|maximum) depth( of the {_PIC}|)?", f"How deep is (the|this) {_PIC}?", "What does the depth scale show?", f"What depth (range |)does (the|this) {_PIC} (cover|show)?",
               "What is the depth (setting|range)?"),
              (f"What is the depth setting of this {_PIC}?", f"(Give|Estimate) the (imaging|maximum) depth of this {_PIC}.")),
}
SUFFIXES = ("", "", "", "", "", "", " Answer briefly.", " Please answer.")
PREFIXES = ("", "", "", "", "", "", "Please answer: ", "Question: ", "Doctor, ", "In your opinion, ", "Based on this image, ", "Looking at the scan, ")


def expand(pattern: str, rng: Rng) -> str:
    """One sentence of a pattern; the innermost brackets first."""
    while (m := re.search(r"\(([^()]*)\)", pattern)) is not None:
        pattern = pattern[:m.start()] + str(rng.choice(m[1].split("|"))) + pattern[m.end():]
    return pattern


def describe(x: Lesion) -> str:
    return f"A {x.kind} of {x.size_mm} mm lies on the {x.side} at a depth of {x.depth_cm} cm."


def report(p: Phantom) -> str:
    found = " ".join(map(describe, p.lesions)) if p.lesions else "No lesion is seen."
    text = "A caption is burned in." if p.caption else "There is no caption."
    return f"{found} The imaging depth is {p.range_cm} cm. {text}"


def _named(p: Phantom, x: Lesion, rng: Rng, side: bool = True) -> str:
    """A finding as a question may call it, without doubt which is meant."""
    ways = []
    if len(p.lesions) == 1:
        ways += [str(rng.choice(("the lesion", "the lesion", "the abnormality", "the finding", "the focal lesion", "this lesion"))), "KIND"]
    elif len({y.kind for y in p.lesions}) == 2:
        ways.append("KIND")
    if side and len(p.lesions) == 2:
        ways += [f"the lesion on the {x.side}", f"the {x.side} lesion", f"the finding on the {x.side}", "KIND on the " + x.side]
    return str(rng.choice(ways)).replace("KIND", "the " + str(rng.choice(NAMES[x.kind])))


def _candidates(p: Phantom, rng: Rng) -> list[tuple[str, Callable[[], tuple[dict[str, str], str, str]]]]:
    """The topics that make sense for this phantom, each with its fillings, its scored answer and its sentence."""
    kinds = {x.kind for x in p.lesions}
    yes = lambda b: ("Yes", "Yes") if b else ("No", "No")  # noqa: E731

    def kind() -> tuple[dict[str, str], str, str]:
        present = rng.random() < 0.5 and kinds
        k = str(rng.choice(sorted(kinds) if present else [k for k in KINDS if k not in kinds]))
        return {"KIND": str(rng.choice(NAMES[k]))}, *yes(k in kinds)

    def kind_side() -> tuple[dict[str, str], str, str]:
        x = p.lesions[int(rng.integers(len(p.lesions)))]
        side, k = x.side, x.kind
        if rng.random() < 0.5:  # false in one respect
            side, k = (("left" if side == "right" else "right"), k) if rng.random() < 0.5 else (side, str(rng.choice(KINDS)))
        return {"KIND": str(rng.choice(NAMES[k])), "SIDE": side}, *yes(any(y.kind == k and y.side == side for y in p.lesions))

    def what() -> tuple[dict[str, str], str, str]:
        if not p.lesions:
            return {}, "no lesion", "No lesion is seen."
        names = [f"a {x.kind}" for x in p.lesions]
        if len(names) == 2 and names[0] == names[1]:
            return {}, f"two {p.lesions[0].kind}" + ("es" if "mass" in names[0] else "s"), f"Two {p.lesions[0].kind}" + ("es are seen." if "mass" in names[0] else "s are seen.")
        text = " and ".join(names)
        return {}, text.replace("a ", "").replace(" and ", " "), f"{text[0].upper()}{text[1:]} {'is' if len(names) == 1 else 'are'} seen."

    def what_side() -> tuple[dict[str, str], str, str]:
        side = str(rng.choice(("left", "right")))
        for x in p.lesions:
            if x.side == side:
                return {"SIDE": side}, x.kind, f"A {x.kind} is seen on the {side}."
        return {"SIDE": side}, "no lesion", f"No lesion is seen on the {side}."

    def count() -> tuple[dict[str, str], str, str]:
        n = len(p.lesions)
        return {}, COUNTS[n], ("No lesion is seen.", "There is one lesion.", "There are two lesions.")[n]

    out: list[tuple[str, Callable[[], tuple[dict[str, str], str, str]]]] = [
        ("report", lambda: ({}, report(p), report(p))),
        ("abnormal", lambda: ({}, *yes(bool(p.lesions)))),
        ("normal", lambda: ({}, *yes(not p.lesions))),
        ("kind?", kind), ("kind?", kind), ("what", what), ("what", what), ("count", count), ("what side", what_side),
        ("several?", lambda: ({}, *yes(len(p.lesions) == 2))),
        ("shadow?", lambda: ({}, *yes("gallstone" in kinds))),
        ("caption?", lambda: ({}, *yes(p.caption is not None))),
        ("range", lambda: ({}, f"{p.range_cm} cm", f"The imaging depth is {p.range_cm} cm.")),
    ]
    if not p.lesions:
        return out
    x = p.lesions[int(rng.integers(len(p.lesions)))]
    out += [("kind side?", kind_side),
            ("depth", lambda: ({"IT": _named(p, x, rng)}, f"{x.depth_cm} cm", f"It lies at a depth of {x.depth_cm} cm.")),
            ("depth", lambda: ({"IT": _named(p, x, rng)}, f"{x.depth_cm} cm", f"It lies at a depth of {x.depth_cm} cm.")),
            ("size", lambda: ({"IT": _named(p, x, rng)}, f"{x.size_mm} mm", f"It measures about {x.size_mm} mm.")),
            ("size", lambda: ({"IT": _named(p, x, rng)}, f"{x.size_mm} mm", f"It measures about {x.size_mm} mm."))]

    def deeper() -> tuple[dict[str, str], str, str]:
        n = max(2, x.depth_cm + int(rng.choice((-3, -2, -1, 1, 2))))
        return {"IT": _named(p, x, rng), "NUM": str(n)}, *yes(x.depth_cm > n)

    def larger() -> tuple[dict[str, str], str, str]:
        n = int(rng.choice([s for s in SIZES if s != x.size_mm]))
        return {"IT": _named(p, x, rng), "NUM": str(n)}, *yes(x.size_mm > n)

    if not any(y.depth_cm == 2 for y in p.lesions):  # "deeper than 2" of one at 2 would be a tie
        out.append(("deeper?", deeper))
    out.append(("larger?", larger))
    if len(p.lesions) == 1 or len(kinds) == 2:
        place = {"IT": _named(p, x, rng, side=False)}
        out += [("side?", lambda: (place, x.side.capitalize(), x.side.capitalize())), ("where", lambda: (place, x.side, f"It lies on the {x.side}."))]
    by_side = _named(p, x, rng) if len(p.lesions) == 1 else f"the lesion on the {x.side}"
    it = str(rng.choice(("the lesion", "the finding", "the abnormality"))) if len(p.lesions) == 1 else by_side
    if x.kind != "gallstone":
        cystic = "Cystic" if x.kind == "cyst" else "Solid"
        out.append(("cystic?", lambda: ({"IT": it}, cystic, cystic)))
    if x.kind.endswith("mass"):
        echo = x.kind.split()[0].capitalize()
        out.append(("echo?", lambda: ({"IT": it}, echo, echo)))
    return out


def ask(p: Phantom, rng: Rng, n: int, held_out: bool = False) -> list[Question]:
    """`n` questions about a phantom, of different topics as far as there are so many."""
    pool = _candidates(p, rng)
    chosen, seen = [], set[str]()
    for at in rng.permutation(len(pool)):
        topic = pool[at][0]
        if len(chosen) < n and topic not in seen:
            seen.add(topic)
            chosen.append(pool[at])
    return [_word(topic, fill, rng, held_out) for topic, fill in chosen]


def _word(topic: str, fill: Callable[[], tuple[dict[str, str], str, str]], rng: Rng, held_out: bool) -> Question:
    slots, answer, sentence = fill()
    train, held = WORDINGS[topic]
    text = expand(str(rng.choice(held if held_out else train)), rng)
    for slot, value in slots.items():
        text = text.replace(slot, value)
    if not held_out:
        text = _vary(text, rng)
    return Question(topic, text, topic.endswith("?") or topic in ("abnormal", "normal"), answer, sentence)


def _vary(text: str, rng: Rng) -> str:
    """Openings, case and a missing full stop: variety that must not matter."""
    prefix = str(rng.choice(PREFIXES))
    if prefix and not prefix.endswith(": "):
        text = text[0].lower() + text[1:]
    text = prefix + text
    text += str(rng.choice(SUFFIXES))
    draw = rng.random()
    if draw < 0.08:
        text = text.lower()
    elif draw < 0.14:
        text = text.rstrip("?.")
    return text


def caption_question(p: Phantom, rng: Rng) -> Question:
    return _word("report", lambda: ({}, report(p), report(p)), rng, False)


RECONSTRUCT = (("Reconstruct the (image|picture|scan|ultrasound).", "Reconstruct (this|the) (image|scan).", "(Copy|Redraw|Repeat|Reproduce) (the|this) (image|picture|scan)."), ("Please reconstruct this ultrasound.", "Reproduce this ultrasound."))
REMOVE = (("(Remove|Delete|Erase|Take away) the (lesion|lesions|abnormality|finding|findings)( from the (image|scan)|).", "(Show|Draw) the (image|scan|picture) without (the |)(lesion|lesions|findings).", "Make the (image|scan) normal."),
          ("Please remove the lesion.", "Remove all lesions from this image."))
MARK = (("(Mark|Highlight|Colour|Outline|Segment) the (lesion|lesions|abnormality|finding|findings)( in the (image|scan)|).", "(Show|Draw) (where the (lesion|finding) is|the (position|location) of the lesion).", "(Mark|Segment) (all|any) (lesions|findings)."),
        ("Please mark the lesion.", "Highlight all lesions in this image."))
DRAW = {"reconstruct": RECONSTRUCT, "remove": REMOVE, "mark": MARK}


def instruction(task: str, rng: Rng, held_out: bool = False) -> str:
    return expand(str(rng.choice(DRAW[task][held_out])), rng)


def corpus(rng: Rng, n: int) -> list[str]:
    """Texts that the tokenizer learns its pieces from: questions of training wordings, answers and instructions."""
    from phantoms import phantom

    out = []
    for seed in range(n):
        for q in ask(phantom(seed), rng, 8):
            out += [q.text, q.sentence]
        out += [instruction(task, rng) for task in DRAW]
    return out


if __name__ == "__main__":
    from phantoms import phantom

    for s in range(6):
        print(report(phantom(s)))
        for h in (False, True):
            for question in ask(phantom(s), np.random.default_rng(s), 7, h):
                print("   ", "held" if h else "    ", question.topic, "|", question.text, "|", question.answer, "|", question.sentence)
