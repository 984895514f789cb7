"""tools/test_report.py: the table, the last line and the exit status."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def report(folder):
    run = subprocess.run([sys.executable, ROOT / "tools/test_report.py", folder], capture_output=True, text=True)
    return run.returncode, run.stdout.splitlines()


def suite(folder, name, file, text):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / file).write_text(text)


def test_everything_passed(tmp_path):
    suite(tmp_path, "unit", "0.xml", '<testsuites><testsuite><testcase name="a" classname="A" time="0.5"/>'
          '<testcase name="left out" status="notrun"/></testsuite></testsuites>')
    suite(tmp_path, "check", "steps.tsv", "format\tpassed\t1.5\n")
    status, lines = report(tmp_path)
    assert (status, lines[-1]) == (0, "2 passed, 0 failed")


def test_a_failure_is_shown_and_counted(tmp_path):
    suite(tmp_path, "api", "junit.xml", '<testsuites><testsuite><testcase name="a" classname="A">'
          '<failure message="m">it broke here</failure></testcase>'
          '<testcase name="b" classname="A"><skipped/></testcase>'
          '<testcase name="c" classname="A"/></testsuite></testsuites>')
    status, lines = report(tmp_path)
    assert (status, lines[-1]) == (1, "1 passed, 1 failed")
    assert "FAILED api: A.a" in lines and "  it broke here" in lines


def test_a_cut_off_file_is_a_failure(tmp_path):
    suite(tmp_path, "unit", "0.xml", '<testsuites><testsuite><testcase name="a"')
    assert report(tmp_path)[0] == 1


def test_nothing_ran_is_no_success(tmp_path):
    assert report(tmp_path) == (1, ["", f"{'suite':<24}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>10}",
                                    "0 passed, 0 failed"])
    assert report(tmp_path / "absent")[0] == 1
