"""Compares the table of prototypes, the constants and the options with the library's header."""

import ctypes
import os
import re
import unittest
from pathlib import Path

import graphile_worker
from graphile_worker import _errors, _hooks, _native, _options
from harness import CHECKOUT


def header():
    """Returns the header without comments."""
    path = Path(os.environ.get("GRAPHILE_WORKER_PREFIX", CHECKOUT)) / "include/graphile_worker.h"
    noise = r"/\*.*?\*/|//[^\n]*|^#(if|endif|else|include)[^\n]*"
    return re.sub(noise, " ", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def c_types(arguments):
    """Returns the types of arguments, without names: `const gw_job_t *` becomes `gw_job_t*`."""
    if arguments.strip() in ("", "void"):
        return []
    texts = [re.sub(r"\bconst\b|\bstruct\b", "", argument).strip() for argument in arguments.split(",")]
    return [re.sub(r"\s+", "", re.sub(r"\w+$", "", text)) for text in texts]


def declared():
    """Returns the functions that the header declares: name -> (return type, argument types)."""
    functions = {}
    for answer, name, arguments in re.findall(r"([\w][\w\s]*[\s*]+?)\b(gw_\w+)\s*\(([^()]*)\)\s*;", header()):
        answer = re.sub(r"\b(const|struct|GW_\w+|extern)\b|\s", "", answer)
        functions[name] = (answer, c_types(arguments))
    return functions


SCALARS = {
    "void": None, "bool": ctypes.c_bool, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32,
    "int64_t": ctypes.c_int64, "size_t": ctypes.c_size_t, "gw_status_t": ctypes.c_int32, "gw_outcome_t": ctypes.c_int32,
}


def fits(c_type, kind):
    """Whether a ctypes type is right for a C type."""
    if c_type in SCALARS:
        return kind is SCALARS[c_type]
    if c_type == "char*":
        return kind in (ctypes.c_char_p, ctypes.c_void_p)
    if c_type == "char**":  # texts as an argument, or a text to return
        return kind in (_native._texts, _native._out_text)
    if c_type.endswith("**") or c_type in ("int64_t*", "size_t*"):
        base = SCALARS.get(c_type[:-1], ctypes.c_void_p)
        return kind._type_ is base
    return kind is ctypes.c_void_p  # handles, callbacks, structs


class PrototypesTest(unittest.TestCase):
    def test_the_table_has_exactly_the_functions_of_the_header(self):
        self.assertEqual(sorted(_native.PROTOTYPES), sorted(declared()))

    def test_every_function_has_the_headers_argument_count(self):
        counts = {name: len(arguments) for name, (_, arguments) in declared().items()}
        self.assertEqual({name: len(types) - 1 for name, types in _native.PROTOTYPES.items()}, counts)

    def test_every_type_has_the_width_of_the_header(self):
        for name, (answer, arguments) in declared().items():
            for c_type, kind in zip([answer, *arguments], _native.PROTOTYPES[name]):
                with self.subTest(function=name, type=c_type):
                    self.assertTrue(fits(c_type, kind), f"{kind} for {c_type}")

    def test_constants_have_the_values_of_the_header(self):
        constants = dict(re.findall(r"\b(GW_\w+)\s*=?\s+=?\s*(-?(?:0x)?[0-9A-Fa-f]+)\b", header()))
        for ours, theirs in {
            "ABI_VERSION": "GW_ABI_VERSION", "OK": "GW_OK", "TIMEOUT": "GW_TIMEOUT", "STOPPED": "GW_STOPPED",
            "WOKEN": "GW_WOKEN", "NOT_FOUND": "GW_NOT_FOUND", "CANCELLED": "GW_CANCELLED",
            "STOP_GRACEFUL": "GW_STOP_GRACEFUL", "STOP_ABORT": "GW_STOP_ABORT", "RUN_FOREVER": "GW_RUN_FOREVER",
            "RUN_ONCE": "GW_RUN_ONCE",
        }.items():
            self.assertEqual(getattr(_native, ours), int(constants[theirs], 0), theirs)

    def test_every_status_has_an_exception(self):
        at, index, names = _native.lib.gw_status_at, 0, []
        while (status := at(index)) != -(2**31):
            names.append((status, _native._name(status)))
            index += 1
        without = [name for status, name in names if status < 0 and name not in _errors.BY_STATUS]
        self.assertEqual(without, [])
        self.assertGreater(len(names), 30)


class OptionsTest(unittest.TestCase):
    def test_the_typed_options_are_those_of_the_library(self):
        for whose, ours in (("worker", _options.WorkerOptions), ("client", _options.ClientOptions)):
            theirs = {option["key"] for option in graphile_worker.options() if option["for"] in (whose, "both")}
            self.assertEqual({*ours.__annotations__, "database_url"}, theirs)

    def test_every_interceptor_is_an_event_of_the_library(self):
        self.assertLessEqual(set(_hooks.INTERCEPTED), set(_native.texts_at(_native.lib.gw_event_name_at)))

    def test_package_library_and_crate_have_one_version(self):
        self.assertEqual(_native.lib.gw_version_string().decode(), graphile_worker.__version__)
        crate = re.search(r'^version = "(.*)"', (CHECKOUT / "Cargo.toml").read_text(), re.MULTILINE)
        self.assertEqual(crate.group(1), graphile_worker.__version__)


if __name__ == "__main__":
    unittest.main()
