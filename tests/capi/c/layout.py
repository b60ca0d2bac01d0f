"""Prints the layout of the structs that ask.py declares by hand, in the form of layout.txt."""

import ctypes
import importlib.util
import re
import sys

spec = importlib.util.spec_from_file_location("ask", sys.argv[1])
ask = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(ask)

ORDER = ["RuntimeOptions", "DeviceInfo", "ModelOptions", "Memory", "ModelInfo", "Pixels", "DecodeOptions",
         "SessionOptions", "Stats", "Token", "AskOptions", "GenerateOptions"]

for name in ORDER:
    struct = getattr(ask, name)
    c_name = "hgpt" + re.sub("([A-Z])", lambda m: "_" + m.group(1).lower(), name)
    print(c_name, ctypes.sizeof(struct))
    for field, _ in struct._fields_:
        place = getattr(struct, field)
        print(f"{c_name}.{field} {place.offset} {place.size}")
