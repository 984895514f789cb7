#!/usr/bin/python3
"""Reads what the suites left in a results folder and prints a table, the failures, and as the last line
"N passed, N failed". Ends with 0 only if something ran and nothing failed.

    test_report.py RESULTS      RESULTS/SUITE/*.xml (JUnit) and RESULTS/SUITE/*.tsv (name, outcome, seconds)
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass


@dataclass
class Case:
    name: str
    outcome: str  # passed, failed, skipped
    seconds: float
    message: str = ""


def junit_cases(path):
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        return [Case(f"{path.name}: not readable: {error}", "failed", 0.0)]
    cases = []
    for element in root.iter("testcase"):
        if element.get("status") == "notrun":  # gtest lists what its filter left out
            continue
        name = f"{element.get('classname', '')}.{element.get('name', '')}"
        bad = [child for child in element if child.tag in ("failure", "error")]
        skipped = element.find("skipped") is not None or element.get("result") == "skipped"
        outcome = "failed" if bad else "skipped" if skipped else "passed"
        message = "\n".join((child.text or child.get("message") or "").strip() for child in bad)
        cases.append(Case(name, outcome, float(element.get("time") or 0), message))
    return cases


def step_cases(path):
    lines = path.read_text().splitlines()
    return [Case(name, outcome, float(seconds)) for name, outcome, seconds in (line.split("\t") for line in lines)]


def suites(folder):
    for suite in sorted(path for path in folder.iterdir() if path.is_dir()):
        cases = [case for path in sorted(suite.glob("*.xml")) for case in junit_cases(path)]
        cases += [case for path in sorted(suite.glob("*.tsv")) for case in step_cases(path)]
        yield suite.name, cases


def main(folder):
    found = dict(suites(pathlib.Path(folder))) if pathlib.Path(folder).is_dir() else {}

    def count(cases, outcome):
        return sum(case.outcome == outcome for case in cases)

    for suite, cases in found.items():
        for case in cases:
            if case.outcome == "failed":
                print(f"\nFAILED {suite}: {case.name}")
                lines = case.message.splitlines()
                shown = lines if len(lines) <= 60 else lines[:20] + ["  ..."] + lines[-39:]
                print("\n".join("  " + line for line in shown))

    print(f"\n{'suite':<24}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>10}")
    for suite, cases in found.items():
        seconds = sum(case.seconds for case in cases)
        print(f"{suite:<24}{count(cases, 'passed'):>8}{count(cases, 'failed'):>8}"
              f"{count(cases, 'skipped'):>9}{seconds:>10.1f}")
    everything = [case for cases in found.values() for case in cases]
    passed, failed = count(everything, "passed"), count(everything, "failed")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
