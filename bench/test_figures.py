"""The sums, the page, the chart, the options and the clean-up, on numbers made up: python3 -m unittest discover -s bench"""

import contextlib
import io
import os
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import chart  # noqa: E402
import figures  # noqa: E402
import leftovers  # noqa: E402
import options  # noqa: E402
import page  # noqa: E402
import readme  # noqa: E402
from case import Case, Row  # noqa: E402

ROWS = {"A": Row("a case <of two>", goal=1.0), "B": Row("a case by its floor", beyond_floor=0.3), "C": Row("a case without a goal")}


def took(*seconds, **more):
    return {"seconds": list(seconds), "memory": 50, **more}


def results(rows, **more):
    return {"when": "2030-01-02", "machine": "2 cores", "runs": 3, "minutes": 1, "versions": {"kiln": "1", "docker": "2"}, "skipped": {},
            "rows": rows, "floors": {}, "notes": [], **more}


class Verdicts(unittest.TestCase):
    def test_a_goal_is_reached_by_the_minimum(self):
        self.assertEqual(figures.verdict(ROWS["A"], {"kiln": took(0.9, 1.5)}, None), "reached")
        self.assertEqual(figures.verdict(ROWS["A"], {"kiln": took(1.1)}, None), "missed")

    def test_a_missed_goal_near_the_floor_is_the_floor_s(self):
        self.assertEqual(figures.verdict(ROWS["A"], {"kiln": took(1.3)}, took(1.0)), "floor")
        self.assertEqual(figures.verdict(ROWS["A"], {"kiln": took(1.31)}, took(1.0)), "missed")

    def test_a_goal_above_the_floor_moves_with_it(self):
        self.assertEqual(figures.goal_of(ROWS["B"], took(2.0, 3.0)), 2.3)
        self.assertIsNone(figures.goal_of(ROWS["B"], None))

    def test_without_a_goal_the_fastest_other_is_it(self):
        self.assertEqual(figures.verdict(ROWS["C"], {"kiln": took(2), "docker": took(3), "buildah": took(1.9)}, None), "missed")
        self.assertEqual(figures.verdict(ROWS["C"], {"kiln": took(2), "docker": took(3), "buildah": took()}, None), "reached")
        self.assertIsNone(figures.verdict(ROWS["C"], {"kiln": took(2)}, None))

    def test_kiln_that_failed_has_missed(self):
        self.assertEqual(figures.verdict(ROWS["A"], {"kiln": took(failed="no")}, None), "missed")


class Changes(unittest.TestCase):
    def test_a_change_within_the_noise_is_not_named(self):
        found = figures.changes({"A": {"kiln": took(1.0, 1.0, 1.2)}, "B": {"kiln": took(1.0)}, "C": {"kiln": took(1.0, 1.0, 1.0)}},
                                {"A": {"kiln": took(1.04)}, "B": {"kiln": took(0.9, 1.1, 1.2)}, "C": {"kiln": took(0.9)}})
        self.assertEqual([(row, beyond) for row, _, _, beyond in found], [("A", False), ("B", False), ("C", True)])

    def test_a_change_is_said_in_both_and_in_percent(self):
        self.assertEqual(figures.change(0.76, 0.70), "0.760 → 0.700 s, -8 %")

    def test_cost_of_a_file_is_compared_between_sizes(self):
        rows = {"B13-10k": {"kiln": took(1.0)}, "B13-100k": {"kiln": took(15.0, 30.0)}}
        self.assertAlmostEqual(figures.growth(rows), 1.5)
        self.assertIsNone(figures.growth({"B13-10k": {"kiln": took(1.0)}}))


class Page(unittest.TestCase):
    def test_what_was_typed_by_hand_stays(self):
        whole = f"# Mine\n{page.BEGIN}\nold\n{page.END}\nmine, too\n"
        self.assertEqual(page.replaced(whole, "new"), f"# Mine\n{page.BEGIN}\n\nnew\n\n{page.END}\nmine, too\n")

    def test_a_page_without_marks_is_not_written_over(self):
        with self.assertRaises(ValueError):
            page.replaced("# Mine\n", "new")

    def test_the_page_has_its_marks(self):
        with open(page.PAGE) as file:
            self.assertIn("new numbers", page.replaced(file.read(), "new numbers"))

    def test_who_is_absent_or_failed_is_named(self):
        text = page.generated(ROWS, results({"A": {"kiln": took(1.0), "docker": took(failed="exit 1: too many layers")}}, skipped={"podman": "not there"}), None, None)
        self.assertIn("**Skipped: podman**: not there.", text)
        self.assertIn("- A, docker: exit 1: too many layers", text)
        self.assertIn("| failed |", text)

    def test_the_table_has_minimum_median_and_ratio(self):
        text = page.generated(ROWS, results({"A": {"kiln": took(1.0, 1.2, 3.0), "docker": took(2.5)}}), None, None)
        self.assertIn("| 1.00 / 1.20 | 2.50 / 2.50 (2.5×) | 1.00 ✓ | – |", text)

    def test_rows_that_were_not_measured_stay_with_their_day(self):
        before = page.joined(None, results({"A": {"kiln": took(1.0)}, "B": {"kiln": took(1.0)}}))
        after = page.joined(before, results({"B": {"kiln": took(0.5)}}, when="2030-02-03"))
        origin = {"when": "2030-01-02", "machine": "2 cores", "runs": 3, "kiln": "1"}
        self.assertEqual((after["of"], after["rows"]["B"]["kiln"]["seconds"]), ({"A": origin}, [0.5]))
        text = page.generated(ROWS, after, before, None)
        self.assertIn("From 2030-01-02 on 2 cores, kiln 1, rounds: 3: A.", text)
        self.assertIn("- B 1.00 → 0.500 s, -50 %", text)
        self.assertNotIn("- A 1.00", text)


    def test_a_builder_that_was_not_measured_again_stays_in_its_row(self):
        first = results({"A": {"kiln": took(1.0), "docker": took(4.0)}}, runs=5)
        first["notes"] = [{"row": "A", "builder": "docker", "text": "slow"}, {"row": "A", "builder": "kiln", "text": "quick"}]
        after = page.joined(page.joined(None, first), results({"A": {"kiln": took(0.5)}}, when="2030-02-03", skipped={"docker": page.NOT_ASKED}))
        again = page.joined(after, results({"B": {"kiln": took(1.0)}}, when="2030-03-04", machine="8 cores"))
        text = page.generated(ROWS, again, None, None)
        self.assertEqual(after["rows"]["A"], {"kiln": took(0.5), "docker": took(4.0)})
        self.assertEqual([note["text"] for note in after["notes"]], ["slow"])
        self.assertEqual(after["skipped"], {})
        self.assertIn("From 2030-01-02 on 2 cores, kiln 1, rounds: 5: A of docker.", text)
        self.assertIn("From 2030-02-03 on 2 cores, kiln 1, rounds: 3: A.", text)
        self.assertIn("Measured 2030-03-04 on 8 cores", text)
        self.assertIn("| 0.500 / 0.500 | 4.00 / 4.00 | 1.00 ✓ |", text, "times of two runs have no ratio")
        self.assertEqual(list(page.of_one_run(again, "A")), ["kiln"])

    def test_what_was_not_tried_did_not_fail(self):
        text = page.generated(ROWS, results({"A": {"kiln": took(1.0), "docker": took(failed="not tried: 100 took it 15 s")}}), None, None)
        self.assertIn("| not tried |", text)

    def test_a_remark_on_a_row_names_no_builder(self):
        self.assertEqual(page.footnotes({"notes": [{"row": "A", "builder": "", "text": "no floor"}]}), "- A: no floor.")


class Readme(unittest.TestCase):
    def test_it_has_the_rows_that_were_measured(self):
        text = readme.table(results({"B1": {"kiln": took(0.0131, 0.02, 0.03), "docker": took(failed="no")}, "A": {"kiln": took(1.0, memory=70)}}))
        self.assertIn("| rebuild with nothing changed, 12 instructions | 0.013 / 0.020 | – |", text)
        self.assertIn("2030-01-02, 2 cores: kiln 1, docker 2. kiln's largest process in all cases of the page: 70 MiB.", text)

    def test_it_has_its_marks(self):
        with open(readme.README) as file:
            whole = file.read()
        self.assertEqual((whole.count(readme.BEGIN), whole.count(readme.END)), (1, 1))


class Options(unittest.TestCase):
    def kind(self, name, *rows):
        return type(name, (Case,), {"name": name, "rows": dict.fromkeys(rows or [name]), "disk": 35 if name == "B4" else 20})

    def test_a_row_stands_for_its_case_and_a_family_for_all(self):
        cases = [self.kind("B1"), self.kind("B3", "B3", "B3b"), self.kind("B14-10", "B14-10", "B14n-10"), self.kind("B14s-1")]
        for only, names in {"B3b": ["B3"], "B14": ["B14-10", "B14s-1"], "B14s": ["B14s-1"], "B14n-10, B1": ["B1", "B14-10"]}.items():
            self.assertEqual([kind.name for kind in options.selected(only, cases)], names)
        with self.assertRaisesRegex(options.Usage, "no case or row `B9`; there are B1, B14"):
            options.selected("B9", cases)

    def test_an_unknown_builder_is_told_with_those_there_are(self):
        self.assertEqual(options.wanted("kiln, docker", ["kiln", "docker"]), ["kiln", "docker"])
        with self.assertRaisesRegex(options.Usage, "no builder `nix`; there are kiln, docker"):
            options.wanted("kiln,nix", ["kiln", "docker"])

    def test_the_profile_is_that_of_the_path(self):
        self.assertEqual([options.profile(path) for path in ("/x/target/release/kiln", "/x/target/debug/kiln", "/x/kiln-debug", "/usr/bin/kiln")],
                         ["release", "debug", "debug", "unknown profile"])
        self.assertEqual(options.built_from("/usr/bin/kiln-debug"), "kiln-debug from elsewhere, debug")

    def test_kiln_alone_needs_less_space(self):
        cases = [self.kind("B1"), self.kind("B4")]
        self.assertEqual((options.space(cases, ["kiln", "docker"]), options.space(cases[:1], ["kiln", "docker"]), options.space(cases, ["kiln"])), (35, 20, 12))


class Runs(unittest.TestCase):
    def test_what_a_dead_run_has_left_goes_and_a_living_one_stays(self):
        with tempfile.TemporaryDirectory() as work, contextlib.redirect_stderr(io.StringIO()):
            dead, lock = leftovers.claim(work)
            lock.close()
            os.mkdir(os.path.join(dead, "case-1"))
            alive, kept = leftovers.claim(work)
            other, another = leftovers.claim(work)
            self.assertEqual([os.path.exists(top) for top in (dead, alive, other)], [False, True, True])
            kept.close()
            another.close()


class Chart(unittest.TestCase):
    def test_it_is_well_formed_and_has_each_ratio(self):
        drawing = chart.draw(ROWS, {"A": {"kiln": took(1.0), "docker": took(4.0), "buildah": took(0.3)}, "B": {"kiln": took(1.0)}})
        texts = [element.text for element in xml.etree.ElementTree.fromstring(drawing).iter() if element.text]
        self.assertIn("docker, A: 4.0 times", texts)
        self.assertIn("buildah, A: 0.3 times", texts)
        self.assertNotIn("B", texts)
        self.assertIn("prefers-color-scheme: dark", drawing)

    def test_alone_kiln_gives_no_chart(self):
        self.assertIsNone(chart.draw(ROWS, {"A": {"kiln": took(1.0)}}))


if __name__ == "__main__":
    unittest.main()
