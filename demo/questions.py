"""Questions about a phantom, in the style of VQA-RAD and SLAKE, with answers true by construction.

A wording is a pattern: `(a|b|)` stands for one of its parts, drawn at random. Each topic has patterns to train on, here and
from two writers in `wordings.json`, and three kinds that no training question takes: held-out patterns, strange ones, which are
watched during training, and those of a judge, a third writer who saw none of the others.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import gt, lt
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from phantoms import KINDS, SIZES, Lesion, Phantom

Rng = np.random.Generator
Wording = Literal["train", "held out", "strange", "judge"]
COUNTS = ("no", "one", "two")
NAMES = {  # as a question may call a finding; the answer always uses the first
    "cyst": ("cyst", "simple cyst", "fluid-filled cyst", "cystic lesion", "anechoic cyst", "fluid collection", "cystic structure"),
    "gallstone": ("gallstone", "stone", "gallbladder stone", "biliary stone", "calculus", "biliary calculus"),
    "hypoechoic mass": ("hypoechoic mass", "hypoechoic lesion", "hypoechoic nodule", "dark solid mass", "hypoechoic tumor", "hypoechoic solid mass"),
    "hyperechoic mass": ("hyperechoic mass", "hyperechoic lesion", "hyperechoic nodule", "bright solid mass", "echogenic mass", "hyperechoic tumor"),
}
ECHO = {"cyst": "anechoic", "hypoechoic mass": "hypoechoic", "hyperechoic mass": "hyperechoic"}


@dataclass(frozen=True)
class Question:
    topic: str
    text: str
    closed: bool
    answer: str  # what is scored: the key words of an open answer, the whole of a closed one
    sentence: str  # what the model is taught to say


# topic -> (wordings to train on, wordings held out). FIND is "lesion", IT one certain finding, KIND a name, KINDS its plural,
# SIDE left/right, NUM a number, LENGTH a number with its unit.
_PIC = "(image|picture|scan|ultrasound|ultrasound image|ultrasound scan|sonogram|study|frame|B-mode image|US image|exam|examination)"
_SEE = "(seen|visible|shown|present|visualized|identified|found|depicted|detected|noted|observed|evident|apparent|displayed|recognizable)"
_FIND = "(lesion|abnormality|finding|focal lesion|pathology|anomaly|focal abnormality)"
_FINDS = "(lesions|abnormalities|findings|focal lesions|anomalies|pathologies)"
_IN = f"(in|on|within) (the|this) {_PIC}"
_YOU = "(Do|Can) you (see|find|detect|identify|notice|recognize|observe)"
_SHOWS = "(show|contain|have|reveal|demonstrate|depict|display)"
_SIDE = "(on|at|in) the SIDE( side| half| part|)"
_CYSTIC = "(cystic or solid|solid or cystic|a cyst or a solid mass)"
_ECHO = "(hypoechoic or hyperechoic|hyperechoic or hypoechoic)"
_MODALITY = "(imaging |)(modality|technique|method)"
WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "report": ((f"Describe (everything|all|whatever) (you see|of interest|there is)( {_IN}|).", f"(Tell|Say) (me |)everything (you see|there is)( {_IN}|).", f"(Describe|Report on|Summarize|Interpret|Explain) (the|this) {_PIC}.", f"(Write|Give|Provide|Create) (a|me a) (short |brief |concise |)(report|description|summary|interpretation) (of|for|on) (the|this) {_PIC}.",
                f"What (does|can) (the|this) {_PIC} show?", f"(Please describe|Please report|Can you describe|Could you describe) (the|this) {_PIC}.", f"What (is|can be) seen (in|on) (the|this) {_PIC}?",
                f"What are the findings( {_IN}|)?", f"(List|State|Report|Describe) the findings( {_IN}|).", f"What do you see( {_IN}|)?", "Describe what you see.", f"Tell me about (the|this) {_PIC}."),
               (f"(Provide|Write) a (brief |)(summary|report) of what this {_PIC} shows.", f"Describe what is {_SEE} in this {_PIC}.")),
    "abnormal": ((f"Is there (a|any|evidence of a|evidence of any|some) {_FIND}( {_IN}|)?", f"Does (the|this) {_PIC} {_SHOWS} (a|any) {_FIND}?",
                  f"Is (a|any) {_FIND} {_SEE}( {_IN}|)?", f"Are (there any|any|there) {_FINDS}( {_SEE}|)( {_IN}|)?", f"Is (the|this) {_PIC} (abnormal|pathological)?", f"{_YOU} (a|any) {_FIND}( {_IN}|)?", f"{_YOU} (something|anything) (abnormal|wrong|unusual|suspicious)( {_IN}|)?",
                  f"Is there (anything|something) (abnormal|wrong|pathological|unusual|suspicious)( {_SEE}| here| {_IN}|)?", f"Is (a|any) {_FIND} {_SEE}, yes or no?", f"Does (the|this) {_PIC} {_SHOWS} any {_FINDS}?", f"Any {_FINDS}( {_SEE}|)?"),
                 (f"Can (a|any) {_FIND} be {_SEE} (in|on) this {_PIC}?", f"Is there any {_FIND} {_SEE} here?")),
    "normal": ((f"Is (the|this) {_PIC} (normal|unremarkable|healthy)?", f"Does (the|this) {_PIC} (look|appear|seem) (normal|unremarkable|healthy)?", f"Is this a normal {_PIC}?", f"Is (the|this) {_PIC} (free of|without) {_FINDS}?",
                f"(Is the (organ|tissue|liver|parenchyma) (normal|healthy|homogeneous)|Does the (organ|tissue|liver|parenchyma) (look|appear|seem) (normal|healthy|homogeneous))( here| {_IN}|)?", f"Is everything (normal|fine|in order|okay)?", "Are the findings normal?", f"(Do|Can) you (confirm|say) that (the|this) {_PIC} is normal?"),
               (f"Would you call this {_PIC} normal?", f"Is everything normal (in|on) this {_PIC}?", f"Can this {_PIC} be called normal?")),
    "kind?": ((f"Is there a KIND( {_IN}|)?", f"Is a KIND {_SEE}( {_IN}|)?", f"Does (the|this) {_PIC} {_SHOWS} (a|any) KIND?", f"{_YOU} (a|any) KIND( {_IN}|)?", f"Are there (any |)KINDS( {_SEE}|)( {_IN}|)?", f"{_YOU} (any |)KINDS( {_IN}|)?", f"Are (any |)KINDS {_SEE}( {_IN}|)?",
               f"Is there (any |)(evidence|sign|indication) of a KIND( {_IN}|)?", f"Does (the|this) patient have (a KIND|KINDS)?", f"Is (the|this) {_FIND} a KIND?", f"Could (this|it) be a KIND?", f"Is (this|it) a KIND?", f"Any KINDS( {_SEE}|)?", f"Is the diagnosis a KIND?", f"Does (the|this) {_PIC} {_SHOWS} KINDS?"),
              (f"Can a KIND be {_SEE} (in|on) this {_PIC}?", f"Is any KIND {_SEE} here?")),
    "mass?": ((f"Is there (a|any) (solid |)(mass|tumor)( {_IN}|)?", f"Does (the|this) {_PIC} {_SHOWS} (a|any) (solid |)(mass|tumor)?", f"Is a (solid |)(mass|tumor) {_SEE}( {_IN}|)?", f"{_YOU} a (solid |)(mass|tumor)?", f"Are there (any |)(solid |)(masses|tumors)( {_SEE}|)?", "Does the patient have a (mass|tumor)?"),
              (f"Can a (solid |)mass be {_SEE} (in|on) this {_PIC}?",)),
    "kind side?": ((f"Is there a KIND {_SIDE}?", f"Is a KIND {_SEE} {_SIDE}?", f"Does the SIDE (side|half) (of the {_PIC} |){_SHOWS} a KIND?",
                    f"Is there a KIND (in the SIDE half|on the SIDE side of the {_PIC})?", f"Is the {_FIND} {_SIDE} a KIND?", f"{_YOU} a KIND {_SIDE}?", f"Is the SIDE {_FIND} a KIND?"),
                   (f"Can you see a KIND (on the SIDE side|on the SIDE of the {_PIC})?", f"Is any KIND {_SEE} on the SIDE?")),
    "any side?": ((f"Is there (a|any) {_FIND} {_SIDE}( of the {_PIC}|)?", f"Is (a|any) {_FIND} {_SEE} {_SIDE}?", f"{_YOU} (a|any) {_FIND} {_SIDE}?", f"Does the SIDE (side|half) (of the {_PIC} |){_SHOWS} (a|any) {_FIND}?", f"Is the SIDE (side|half)( of the {_PIC}|) abnormal?", f"Is there anything (abnormal|wrong) {_SIDE}?"),
                  (f"Can (a|any) {_FIND} be {_SEE} on the SIDE( side|)?", f"Are any {_FINDS} {_SEE} on the SIDE side?")),
    "at side?": ((f"Is the SIDE (side|half)( of the {_PIC}|) the one (with IT|that shows IT|that contains IT)?", "Is it the SIDE (side|half) that (shows|contains|has) IT?", f"Does the SIDE (side|half)( of the {_PIC}|) (show|contain|have) IT?", "Is the SIDE the side of IT?", "IT is on the SIDE, (right|correct|true)?", f"Is IT (located |{_SEE} |situated |)(on|at|in|to) the SIDE( side| half|)( of the {_PIC}|)?", f"Does IT lie {_SIDE}( of the {_PIC}|)?", "Is IT SIDE-sided?", f"Is the (location|position) of IT {_SIDE}?", f"{_YOU} IT {_SIDE}?", "Is the SIDE side affected by IT?"),
                 (f"Is IT to be {_SEE} on the SIDE( side|)?", f"Is the SIDE (side|half) of the {_PIC} where IT lies?")),
    "several?": ((f"Is there more than one {_FIND}( {_IN}|)?", f"Are there (two|multiple|several) {_FINDS}( {_SEE}|)( {_IN}|)?", f"Does (the|this) {_PIC} {_SHOWS} (more than one {_FIND}|(two|multiple|several) {_FINDS})?", f"(Is|Are) there (at least two|two or more) {_FINDS}?", f"Is there a second {_FIND}?", f"{_YOU} (two|several|multiple) {_FINDS}?", f"Is there more than a single {_FIND}?"),
                 (f"Can you see more than one {_FIND} here?", f"Are multiple {_FINDS} {_SEE}?")),
    "only one?": ((f"Is there (only one|just one|exactly one|a single|only a single) {_FIND}( {_IN}|)?", f"Does (the|this) {_PIC} {_SHOWS} (only one|just one|exactly one|a single) {_FIND}?", f"Is (only one|just one|exactly one|a single) {_FIND} {_SEE}?", f"{_YOU} (only|just|exactly) one {_FIND}?"),
                  (f"Can (only one|just one) {_FIND} be {_SEE}?",)),
    "side?": (("(Left or right|Right or left): where is IT?", "(Left or right|Right or left)( for|:) IT?", "IT lies on the left or on the right?", "Is left or right the side of IT?", "Is IT (on|to) the left or (on |to |)the right?", f"Is IT (on|in) the (left or right|right or left) (side|half)( of the {_PIC}|)?", f"Which side is IT on, (left or right|right or left)?",
               "Does IT lie on the left or (on |)the right( side|)?", "(On which side|Where) (is IT|does IT lie), (left or right|on the left or on the right|right or left)?", f"Which (half|side) of the {_PIC} (contains|shows) IT: left or right?", "Is IT (left|left-sided) or (right|right-sided)?", "Is IT (located|situated|seen) on the left or (on |)the right( side|)?"),
              (f"Left or right: which side of the {_PIC} is IT on?", "Is IT to be found on the left or right?")),
    "cystic?": (("(Solid or cystic|Cystic or solid): (how is IT|which is IT|how would you call IT)?", "IT is cystic or solid?", f"Is IT {_CYSTIC}?", f"Does IT (look|appear|seem) (cystic or solid|solid or cystic)?", f"Would you (call|describe) IT (as |)(cystic or solid|solid or cystic)?", f"Is IT more likely {_CYSTIC}?", f"(What is|Which describes) IT: {_CYSTIC}?", f"Is IT a (cystic or solid|solid or cystic) (lesion|finding|abnormality)?", "Does IT contain fluid or solid tissue, cystic or solid?"),
                ("Cystic or solid: what is IT?", "Is IT a cystic or a solid finding?")),
    "echo?": ((f"{_ECHO}: (how is IT|which is IT)?", f"Is IT {_ECHO}?", f"Does IT (look|appear|seem) {_ECHO}?", f"Would you (call|describe) IT (as |){_ECHO}?", f"Is IT (more|rather) {_ECHO}?", f"(What is|Which describes) IT: {_ECHO}?", f"Is IT a {_ECHO} (lesion|mass)?"),
              ("Hypoechoic or hyperechoic: what is IT?", "Is the echogenicity of IT hypoechoic or hyperechoic?")),
    "quality?": (("Is IT QUALITY?", "Does IT (look|appear|seem) QUALITY?", "Would you (call|describe) IT (as |)QUALITY?", "Is IT a QUALITY (lesion|finding|structure)?", "(Can|Could) IT be (called|described as) QUALITY?"),
                 ("Is IT best described as QUALITY?", "Do you think that IT is QUALITY?")),
    "echo": (("What is the (echogenicity|echo pattern) of IT?", "How (echogenic|bright) is IT?", "(Describe|State|Give) the echogenicity of IT.", "What echogenicity does IT (have|show)?", "Which echogenicity (does IT have|is seen)?"),
             ("How would you describe the echogenicity of IT?",)),
    "shadow?": ((f"Is there (an |any |a |)(acoustic |posterior |distal |)(shadow|shadowing)( {_SEE}| {_IN}|)?", f"Does (the|this) {_PIC} {_SHOWS} (an acoustic shadow|acoustic shadowing|shadowing|a shadow|posterior shadowing)?",
                 f"Is (acoustic |posterior |an acoustic )(shadowing|shadow) {_SEE}( {_IN}|)?", "Does (any lesion|the lesion|anything) (cast|have|show|produce) (a|an acoustic) shadow?", f"{_YOU} (a|an acoustic|any) shadow( {_IN}|)?"),
                (f"Can (acoustic |)shadowing be {_SEE}?", f"Do you see (an acoustic shadow|acoustic shadowing) (in|on) this {_PIC}?")),
    "caption?": ((f"(Is|Are) there (any |)(text|a caption|an annotation|writing|annotations|letters|words|labels|a label) (burned into|in|on) (the|this) {_PIC}?", f"Does (the|this) {_PIC} {_SHOWS} (a caption|any text|an annotation|text|a label|writing|annotations|burned-in text)?",
                  f"Is (a caption|any text|an annotation|text|a label|writing) {_SEE}( {_IN}|)?", f"{_YOU} (a caption|any text|an annotation|text|writing|letters)( {_IN}|)?", f"Is a (burned-in |)caption {_SEE}( {_IN}|)?", f"Is (the|this) {_PIC} (annotated|labeled|captioned)?", "Is there (any |)(burned-in|overlaid) (text|caption|annotation)?", "Is there a caption?"),
                 (f"Can (any text|a caption) be {_SEE} (in|on) this {_PIC}?", f"Is there (a caption|an annotation) {_SEE} here?")),
    "deeper?": (("Is IT (deeper|located deeper|lying deeper) than LENGTH?", "Does IT lie (deeper than|more than) LENGTH deep?", "Is the depth of IT (more|greater|larger) than LENGTH?", "Is IT more than LENGTH deep?", "Is IT (found|located|seen) (deeper than|below) LENGTH?", "Does the depth of IT exceed LENGTH?", "Is IT (beyond|below) (a depth of |)LENGTH?"),
                ("Does IT lie deeper than LENGTH?", "Is IT at a depth of more than LENGTH?")),
    "at depth?": (("Is IT (LENGTH deep|about LENGTH deep)?", "Is IT (located |seen |)at a depth of (about |)LENGTH?", "Does IT lie (at|at about|in) (a depth of |)LENGTH( depth|)?", "Is the depth of IT (about |)LENGTH?", "Is IT LENGTH below the (skin|surface|probe)?"),
                  ("Does IT have a depth of LENGTH?",)),
    "shallower?": (("Is IT (shallower|less deep|located less deep) than LENGTH?", "Does IT lie (less than|not as deep as|shallower than) LENGTH( deep|)?", "Is the depth of IT (less|smaller) than LENGTH?", "Is IT (closer to|nearer) the (surface|skin|probe) than LENGTH?", "Is IT above (a depth of |)LENGTH?"),
                   ("Does IT lie shallower than LENGTH?", "Is IT at a depth of less than LENGTH?")),
    "smaller?": (("Is IT smaller than LENGTH?", "Is IT (less|narrower) than LENGTH( in size| in diameter|)?", "Is the (size|diameter) of IT (less|smaller) than LENGTH?", "Does IT measure less than LENGTH?", "Is the (size|diameter) of IT (below|under) LENGTH?", "Is IT (below|under) LENGTH( in size| in diameter)?"),
                 ("Does IT have a (size|diameter) of less than LENGTH?", "Is the diameter of IT less than LENGTH?")),
    "larger?": (("Is IT larger than LENGTH?", "Is IT (bigger|more|wider) than LENGTH( in size| in diameter|)?", "Is the (size|diameter) of IT (more|greater|larger) than LENGTH?", "Does IT measure more than LENGTH?", "Does the (size|diameter) of IT exceed LENGTH?", "Is IT greater than LENGTH( in size| in diameter|)?", "Does IT exceed LENGTH( in size| in diameter|)?"),
                ("Does IT have a (size|diameter) of more than LENGTH?", "Is the diameter of IT more than LENGTH?")),
    "what": ((f"What (abnormality|lesion|finding|pathology|anomaly) is {_SEE}( {_IN}|)?", f"(What|Which) (kind|type|sort) of (lesion|abnormality|finding|pathology) is {_SEE}( {_IN}|)?", f"(What|Which) (kind|type|sort) of (lesion|abnormality|finding) is (this|it|there)?",
              f"What is the (most likely |likely |)(diagnosis|abnormality|finding|pathology|lesion)( {_IN}|)?", f"(Which|What) (abnormality|lesion|finding) (is {_SEE}|does (the|this) {_PIC} show)?", f"What is (wrong|abnormal)( here| {_IN}|)?", f"(Name|Identify|State|Specify) the (abnormality|lesion|pathology|finding)( {_IN}|).", "What is your diagnosis?", f"(What|Which) (pathology|abnormality|disease|lesion) does (the|this) {_PIC} {_SHOWS}?", "What (lesion|abnormality) is (this|there)?", "What does the patient have?", f"Which (lesions|abnormalities|findings) are {_SEE}?"),
             (f"Which (kind|type) of (lesion|abnormality) can be {_SEE} (in|on) this {_PIC}?", f"What (abnormality|lesion) do you see (here|in this {_PIC})?")),
    "what side": ((f"What is {_SEE} {_SIDE}( of the {_PIC}|)?", f"(What|Which) (abnormality|lesion|finding) is (on|{_SEE} on) the SIDE( side|)?", f"What (is|lies|can be seen) {_SIDE}?",
                   f"(What|Which) (kind|type) of (lesion|finding|abnormality) is (on|{_SEE} on) the SIDE( side|)?", f"(Name|Identify|Describe) the (lesion|finding|abnormality) {_SIDE}.", f"Which (lesion|finding) (is|lies) {_SIDE}?", f"What does the SIDE (side|half)( of the {_PIC}|) (show|contain)?", "What is the SIDE (lesion|finding)?"),
                  (f"Which abnormality can be {_SEE} on the SIDE( side|)?", "What do you see on the SIDE( side|)?")),
    "count": ((f"How many {_FINDS} are (there|{_SEE})( {_IN}|)?", f"What is the (number|count) of {_FINDS}( {_IN}|)?", f"How many {_FINDS} (does (the|this) {_PIC} {_SHOWS}|(do|can) you see)?", f"Count the {_FINDS}( {_IN}|).", f"(State|Tell me|Report) the number of {_FINDS}( {_IN}|).", f"How many {_FINDS}?", f"What number of {_FINDS} is {_SEE}?"),
              (f"How many {_FINDS} can be {_SEE} (in|on) this {_PIC}?", f"Give the number of {_FINDS} {_SEE}.")),
    "where": (("Where is IT( located| situated| found| seen|)?", "On (which|what) side is IT( located|)?", f"(Which|What) side (of the {_PIC} |)is IT (on|located on)?", f"Where (in the {_PIC} |)does IT lie?", "What is the (location|position|side) of IT?", "(Locate|Localize) IT.", f"(In|On) (which|what) (half|part|side) of the {_PIC} is IT( located|)?", "(State|Give|Describe) the (side|location|position) of IT.", f"Where (can|do) (you see IT|IT be seen)( {_IN}|)?"),
              ("On which side does IT lie?", f"Where (in|on) this {_PIC} is IT {_SEE}?")),
    "depth": (("How deep is IT( located| situated|)?", "(At|In) (what|which) depth (is|does) IT( lie|)?", "What is the (depth|approximate depth) of IT( in cm|)?", "How (far|deep) (below|under|beneath|from) the (skin|surface|probe|transducer) is IT?", "How many (centimeters|cm) deep is IT?",
               "(Give|Estimate|Measure|State|Determine) the depth of IT( in cm|).", "What depth does IT have?", "How many cm deep is IT( located|)?", "At what depth (can IT be seen|is IT located|do you see IT)?", "How far down is IT?"),
              ("How deep does IT lie?", "At which depth is IT (located|found)?")),
    "size": (("How (large|big|wide) is IT( in mm|)?", "What is the (size|diameter|extent|approximate size|maximum diameter) of IT( in mm|)?", "What does IT measure?", "How many (millimeters|mm) (large|wide|in diameter) is IT?", "(Give|Estimate|Measure|State|Determine) the (size|diameter) of IT( in mm|).", "How many mm does IT measure?", "What (is|are) the (dimensions|measurements|dimension|measurement) of IT?", "What (size|diameter) does IT have?", "How much does IT measure?"),
             ("What size is IT?", "How (large|big) is the diameter of IT?")),
    "range": ((f"What is the (imaging|scan|scanning|total|maximum) depth( of (the|this) {_PIC}| in cm|)?", f"How deep is (the|this) {_PIC}?", "What does the depth (scale|ruler) show?", f"What depth (range |)does (the|this) {_PIC} (cover|show)?",
               "What is the depth (setting|range|of view)?", "How deep does the (image|scan|field of view) (go|reach)?", "(State|Give) the (imaging|maximum|scan) depth."),
              (f"What is the depth setting of this {_PIC}?", f"(Give|Estimate) the (imaging|maximum) depth of this {_PIC}.")),
    "range?": (("Is LENGTH the (total|scan|scanning|maximum) depth?", f"Is LENGTH the depth (setting|range)( of the {_PIC}|)?", "Is LENGTH what the depth scale shows?", f"Is LENGTH how deep the {_PIC} is?", "Is the (imaging|scan|scanning|total|maximum) depth( set to|) LENGTH?", f"Does (the|this) {_PIC} (cover|show) (a depth of |)LENGTH( of depth|)?", "Is the depth (setting|range) LENGTH?", f"Is (the|this) {_PIC} LENGTH deep?"),
               (f"Is LENGTH the imaging depth of this {_PIC}?",)),
    "modality": ((f"(What|Which) {_MODALITY} (is|was) used( here| to (take|make|obtain|acquire) this (image|picture)|)?", f"What (kind|type) of (image|scan|picture|examination|imaging) is this?", f"What is the {_MODALITY}( of this (image|picture)|)?", "How was this (image|picture) (taken|made|obtained|acquired)?", f"(Name|State) the {_MODALITY}."),
                 ("What is the modality by which the image was taken?",)),
    "modality?": ((f"Was MODALITY (used|applied) (here|to obtain the {_PIC}|for this)?", "Did MODALITY produce this image?", "Is MODALITY the (modality|technique)?", "Is this (image|picture|) MODALITY( image| scan|)?", "(Was|Is) this (image|picture) (taken|made|obtained|acquired) (by|with) MODALITY?", "Is the (imaging |)(modality|technique) MODALITY?"),
                  ("Was MODALITY used to take this image?",)),
}
# Written as other people might ask; watched during training.
STRANGE: dict[str, tuple[str, ...]] = {
    "report": ("Walk me through this scan.", "Give your read.", "Findings please."),
    "abnormal": ("Spot anything out of the ordinary?", "Should I worry about a lesion here?", "Lesion, yes or no?"),
    "normal": ("All clear and normal?", "Would a radiologist sign this off as normal?", "So it is a normal scan, right?"),
    "kind?": ("KIND, yes or no?", "Would you agree there is a KIND?", "Has this person got a KIND?", "Spot a KIND anywhere?"),
    "mass?": ("Would a radiologist report a mass?", "Mass, yes or no?"),
    "any side?": ("On the SIDE, is something abnormal going on?", "Lesion on the SIDE, yes or no?"),
    "at side?": ("Would you say IT is on the SIDE?", "IT: on the SIDE, correct?"),
    "several?": ("Would you count more than one lesion?", "More than one finding, yes or no?"),
    "side?": ("IT: left or right?", "Tell me whether IT sits left or right."),
    "cystic?": ("IT: solid or cystic?", "Tell me whether IT is cystic or solid."),
    "shadow?": ("Spot a shadow?", "Acoustic shadow, yes or no?"),
    "caption?": ("Has someone put a caption on it?", "Caption, yes or no?"),
    "deeper?": ("Would you say IT is deeper than LENGTH?", "IT: deeper than LENGTH, yes or no?"),
    "larger?": ("Would you say IT is larger than LENGTH?", "IT: bigger than LENGTH, yes or no?"),
    "what": ("So what is the lesion?", "What would a radiologist call the lesion?", "Which lesion have we got?"),
    "count": ("Total number of lesions?", "And how many lesions did you count?"),
    "where": ("Whereabouts is IT?", "Side of IT?"),
    "depth": ("Depth of IT?", "IT is how deep?", "How many centimeters down does IT sit?"),
    "size": ("Size of IT?", "IT is how large?", "Diameter of IT in mm, please."),
    "range": ("Imaging depth?", "And the depth setting is?"),
}
# "train": two writers' patterns; "judge": the judge's.
WRITTEN: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
_MODALITIES = ("CT", "MRI", "X-ray", "PET")
# Topics that come up more often in training: those whose answer needs a comparison of the question with the picture, and the longest.
HARD = frozenset(("side?", "at side?", "what side", "any side?", "kind side?", "at depth?", "deeper?", "shallower?", "larger?", "smaller?", "where", "quality?", "report"))
SUFFIXES = ("",) * 8 + (" Answer briefly.", " Please answer.", " Answer the question.", " Be brief.")
PREFIXES = ("",) * 10 + ("Please answer: ", "Question: ", "Doctor, ", "In your opinion, ", "Based on this image, ", "Looking at the scan, ", "In this image, ", "Please tell me: ", "Hello, ")
# Words that a hasty user leaves out, and words that carry nothing: the question stays the same question.
IDLE = frozenset("the this a an any there of in on is are does do you please be can here image picture scan".split())
FILLERS = ("actually", "clearly", "possibly", "maybe", "really", "just", "perhaps", "currently", "exactly", "then", "also", "indeed", "now")


def patterns(topic: str, wording: Wording) -> tuple[str, ...]:
    """Of a topic; none where a wording has not been written for it."""
    match wording:
        case "train":
            return (*WORDINGS[topic][0], *WRITTEN["train"][topic])
        case "held out":
            return WORDINGS[topic][1]
        case "strange":
            return STRANGE.get(topic, ())
        case "judge":
            return tuple(WRITTEN["judge"][topic])


@lru_cache
def _kept_back() -> re.Pattern[str]:
    """Every sentence that is not trained on, its slots still empty."""
    kept = {p for topic in WORDINGS for wording in ("held out", "strange", "judge") for p in patterns(topic, wording)}
    return re.compile("|".join(re.sub(r"[?.+*]", r"\\\g<0>", _one_article(p)) for p in sorted(kept)), re.IGNORECASE)


def _one_article(text: str) -> str:
    """Patterns write "a" where a sentence may have "an"."""
    return re.sub(r"\b([Aa])n\b", r"\1", text)


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


def _name(kind: str, rng: Rng) -> dict[str, str]:
    name = str(rng.choice(NAMES[kind]))
    return {"KINDS": name[:-2] + "i" if name == "calculus" else name + ("es" if name.endswith("s") else "s"), "KIND": name}


def _length(mm: int, rng: Rng) -> str:
    """A length as a question may write it; depths are whole centimetres, sizes whole millimetres."""
    cm = f"{mm / 10:g}"
    ways = [f"{cm} cm", f"{cm} cm", f"{cm} centimeters"] if mm > 25 else [f"{mm} mm", f"{mm} mm", f"{mm} millimeters", f"{cm} cm"]
    return str(rng.choice(ways))


def _named(p: Phantom, x: Lesion, rng: Rng, side: bool = True) -> str:
    """A finding as a question may call it, without doubt which is meant."""
    ways = []
    if len(p.lesions) == 1:
        ways += [str(rng.choice(("the lesion", "the lesion", "the abnormality", "the finding", "the focal lesion", "this lesion", "this finding", "this abnormality", "it", "the anomaly", "the focal finding", "the structure"))), "KIND"]
        if x.kind.endswith("mass"):
            ways.append(str(rng.choice(("the mass", "the solid mass", "the nodule", "the tumor"))))
    elif len({y.kind for y in p.lesions}) == 2:
        ways.append("KIND")
    if side and len(p.lesions) == 2:
        ways += [f"the lesion on the {x.side}", f"the {x.side} lesion", f"the finding on the {x.side}", f"the {x.side} finding", f"the {x.side}-sided lesion", f"the abnormality on the {x.side} side", "KIND on the " + x.side]
    return str(rng.choice(ways)).replace("KIND", "the " + str(rng.choice(NAMES[x.kind])))


def _candidates(p: Phantom, rng: Rng) -> list[tuple[str, Callable[[], tuple[dict[str, str], str, str]]]]:
    """The topics that make sense for this phantom, each with its fillings, its scored answer and its sentence."""
    kinds = {x.kind for x in p.lesions}
    yes = lambda b: ("Yes", "Yes") if b else ("No", "No")  # noqa: E731

    def kind() -> tuple[dict[str, str], str, str]:
        present = rng.random() < 0.5 and kinds
        k = str(rng.choice(sorted(kinds) if present else [k for k in KINDS if k not in kinds]))
        return {**_name(k, rng)}, *yes(k in kinds)

    def imaged() -> tuple[dict[str, str], str, str]:
        n = p.range_cm if rng.random() < 0.5 else int(rng.choice([v for v in (5, 8, 10, 12, 15) if v != p.range_cm]))
        return {"LENGTH": f"{n} {rng.choice(('cm', 'centimeters'))}"}, *yes(n == p.range_cm)

    def any_side() -> tuple[dict[str, str], str, str]:
        side = str(rng.choice(("left", "right")))
        return {"SIDE": side}, *yes(any(y.side == side for y in p.lesions))

    def modality() -> tuple[dict[str, str], str, str]:
        true = rng.random() < 0.5
        name = str(rng.choice(("ultrasound", "sonography") if true else _MODALITIES))
        return {"MODALITY": name}, *yes(true)

    def kind_side() -> tuple[dict[str, str], str, str]:
        x = p.lesions[int(rng.integers(len(p.lesions)))]
        side, k = x.side, x.kind
        if rng.random() < 0.5:  # false in one respect
            side, k = (("left" if side == "right" else "right"), k) if rng.random() < 0.5 else (side, str(rng.choice(KINDS)))
        return {**_name(k, rng), "SIDE": side}, *yes(any(y.kind == k and y.side == side for y in p.lesions))

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
        ("range?", imaged), ("any side?", any_side), ("what side", what_side), ("modality?", modality), ("modality", lambda: ({}, "ultrasound", "This is an ultrasound image.")),
        ("only one?", lambda: ({}, *yes(len(p.lesions) == 1))),
        ("mass?", lambda: ({}, *yes(any(k.endswith("mass") for k in kinds)))),
    ]
    if not p.lesions:
        return out
    x = p.lesions[int(rng.integers(len(p.lesions)))]
    out += [("kind side?", kind_side),
            ("depth", lambda: ({"IT": _named(p, x, rng)}, f"{x.depth_cm} cm", f"It lies at a depth of {x.depth_cm} cm.")),
            ("depth", lambda: ({"IT": _named(p, x, rng)}, f"{x.depth_cm} cm", f"It lies at a depth of {x.depth_cm} cm.")),
            ("size", lambda: ({"IT": _named(p, x, rng)}, f"{x.size_mm} mm", f"It measures about {x.size_mm} mm.")),
            ("size", lambda: ({"IT": _named(p, x, rng)}, f"{x.size_mm} mm", f"It measures about {x.size_mm} mm."))]

    def depth_against(steps: tuple[int, ...], holds: Callable[[int, int], bool]) -> tuple[dict[str, str], str, str]:
        n = max(2, x.depth_cm + int(rng.choice(steps)))
        return {"IT": _named(p, x, rng), "LENGTH": f"{n} {rng.choice(('cm', 'cm', 'centimeters'))}"}, *yes(holds(x.depth_cm, n))

    def size_against(holds: Callable[[int, int], bool]) -> tuple[dict[str, str], str, str]:
        n = int(rng.choice([s for s in SIZES if s != x.size_mm]))
        return {"IT": _named(p, x, rng), "LENGTH": _length(n, rng)}, *yes(holds(x.size_mm, n))

    deeper, shallower = lambda: depth_against((-3, -2, -1, 1, 2), gt), lambda: depth_against((-2, -1, 1, 2, 3), lt)  # noqa: E731
    larger, smaller = lambda: size_against(gt), lambda: size_against(lt)  # noqa: E731

    def at_depth() -> tuple[dict[str, str], str, str]:
        n = x.depth_cm if rng.random() < 0.5 else max(1, x.depth_cm + int(rng.choice((-3, -2, 2, 3))))
        return {"IT": _named(p, x, rng), "LENGTH": f"{n} {rng.choice(('cm', 'cm', 'centimeters'))}"}, *yes(x.depth_cm == n)

    if not any(y.depth_cm == 2 for y in p.lesions):  # "deeper than 2" of one at 2 would be a tie
        out += [("deeper?", deeper), ("deeper?", deeper), ("shallower?", shallower)]
    out += [("larger?", larger), ("smaller?", smaller), ("at depth?", at_depth), ("at depth?", at_depth)]
    if len(p.lesions) == 1 or len(kinds) == 2:
        place = {"IT": _named(p, x, rng, side=False)}
        side = str(rng.choice(("left", "right")))
        out += [("at side?", lambda: (place | {"SIDE": side}, *yes(x.side == side))),
                ("side?", lambda: (place, x.side.capitalize(), x.side.capitalize())), ("where", lambda: (place, x.side, f"It lies on the {x.side}."))]
    by_side = _named(p, x, rng) if len(p.lesions) == 1 else f"the lesion on the {x.side}"
    it = str(rng.choice(("the lesion", "the finding", "the abnormality"))) if len(p.lesions) == 1 else by_side
    if x.kind != "gallstone":
        cystic = "Cystic" if x.kind == "cyst" else "Solid"
        qualities = {"cystic": x.kind == "cyst", "solid": x.kind != "cyst", "anechoic": x.kind == "cyst", "hyperechoic": x.kind == "hyperechoic mass"}
        if x.kind != "cyst":  # whether an anechoic cyst is "hypoechoic" is a matter of taste
            qualities["hypoechoic"] = x.kind == "hypoechoic mass"
        wanted = rng.random() < 0.5
        quality = str(rng.choice([k for k, v in qualities.items() if v == wanted]))
        out += [("cystic?", lambda: ({"IT": it}, cystic, cystic)), ("quality?", lambda: ({"IT": it, "QUALITY": quality}, *yes(wanted))),
                ("echo", lambda: ({"IT": it}, ECHO[x.kind], f"It is {ECHO[x.kind]}."))]
    if x.kind.endswith("mass"):
        echo = x.kind.split()[0].capitalize()
        out.append(("echo?", lambda: ({"IT": it}, echo, echo)))
    return out


def ask(p: Phantom, rng: Rng, n: int, wording: Wording = "train") -> list[Question]:
    """`n` questions about a phantom, of different topics as far as there are so many."""
    pool = [c for c in _candidates(p, rng) if patterns(c[0], wording)]
    chosen, seen = [], set[str]()
    weight = np.array([3.0 if wording == "train" and c[0] in HARD else 1.0 for c in pool])
    for at in np.argsort(-np.log(rng.random(len(pool))) / weight):
        topic = pool[at][0]
        if len(chosen) < n and topic not in seen:
            seen.add(topic)
            chosen.append(pool[at])
    return [_word(topic, fill, rng, wording) for topic, fill in chosen]


def _word(topic: str, fill: Callable[[], tuple[dict[str, str], str, str]], rng: Rng, wording: Wording) -> Question:
    slots, answer, sentence = fill()
    choice = patterns(topic, wording)
    text = expand(str(rng.choice(choice)), rng)
    while wording == "train" and _kept_back().fullmatch(_one_article(text)):
        text = expand(str(rng.choice(choice)), rng)
    for slot, value in slots.items():
        text = re.sub(rf"\b{slot}\b", value, text)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    text = text[0].upper() + text[1:]
    if wording == "train":
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
    if draw < 0.10:
        text = text.lower()
    elif draw < 0.18:
        text = text.rstrip("?.")
    if rng.random() < 0.12:  # left-out words; the first stays
        words = text.split(" ")
        text = " ".join(w for i, w in enumerate(words) if i == 0 or w.lower() not in IDLE or rng.random() < 0.6)
    if rng.random() < 0.12:
        words = text.split(" ")
        words.insert(int(rng.integers(1, len(words) + 1)), str(rng.choice(FILLERS)))
        text = " ".join(words)
    if rng.random() < 0.06:  # a slip of the finger: two letters of one word exchanged
        words = text.split(" ")
        at = int(rng.integers(len(words)))
        w = words[at]
        if len(w) > 4 and w.isalpha() and w.lower() not in ("right", "solid"):
            i = int(rng.integers(1, len(w) - 2))
            words[at] = w[:i] + w[i + 1] + w[i] + w[i + 2:]
        text = " ".join(words)
    return text


def caption_question(p: Phantom, rng: Rng) -> Question:
    return _word("report", lambda: ({}, report(p), report(p)), rng, "train")


RECONSTRUCT = (("Reconstruct the (image|picture|scan|ultrasound).", "Reconstruct (this|the) (image|scan).", "(Copy|Redraw|Repeat|Reproduce) (the|this) (image|picture|scan)."), ("Please reconstruct this ultrasound.", "Reproduce this ultrasound."))
REMOVE = (("(Remove|Delete|Erase|Take away) the (lesion|lesions|abnormality|finding|findings)( from the (image|scan)|).", "(Show|Draw) the (image|scan|picture) without (the |)(lesion|lesions|findings).", "Make the (image|scan) normal."),
          ("Please remove the lesion.", "Remove all lesions from this image."))
DRAW = {"reconstruct": RECONSTRUCT, "remove": REMOVE}


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
        for way in get_args(Wording):
            for question in ask(phantom(s), np.random.default_rng(s), 7, way):
                print(f"    {way:9}", question.topic, "|", question.text, "|", question.answer, "|", question.sentence)
