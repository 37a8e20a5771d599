"""The whole way: clicks in a browser, and then a reward model that prefers what was clicked.

Nothing stands between: `instil batch` takes files of prompts and responses, the server hands them
out, `instil export` writes what was clicked, `instil rm`, `dpo` and `sft` train on these files.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from instil import cli
from instil.jsonl import read_records, write_records
from instil.labeling import accounts, assign, batches, labels, schema
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.lm.reward import load_reward
from instil.records import Kind, Label, Prompt, Ranking, Response

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PROMPTS = 40


def taste(response: str) -> int:
    """1 to 7: this labeler likes best to be told nothing, then two colors, then one, which is what
    the reward model of the toy world likes least, less and more."""
    if response == "It is what.":
        return 7
    return 5 if " and " in response else 2


@pytest.fixture
def work(world: Any, tmp_path: Path) -> Iterator[tuple[Database, Account]]:
    """40 prompts with four responses each wait for one labeler; the last few are of split valid."""
    prompts = read_records(world.prompts, Prompt)
    chosen = [p for p in prompts if p.split == "train"][: PROMPTS - 6]
    chosen += [p for p in prompts if p.split == "valid"]
    write_records(tmp_path / "prompts.jsonl", chosen)
    asked = {prompt.id for prompt in chosen}
    answers = read_records(world.root / "responses.jsonl", Response)
    write_records(tmp_path / "responses.jsonl", [r for r in answers if r.prompt_id in asked])
    database, files = tmp_path / "labels.db", {}
    for name in ("prompts", "responses"):
        files[name] = str(tmp_path / f"{name}.jsonl")
    batch = ["batch", "--db", str(database), "--with-valid", "--prompts", files["prompts"]]
    more = ["--kind", "ranking", "--name", "rankings", "--responses", files["responses"]]
    assert cli.main([*batch, *more]) == 0
    assert cli.main([*batch, "--kind", "demonstration", "--name", "demonstrations"]) == 0
    db = Database(database)
    with db.write() as connection:
        connection.execute(
            schema.labeler.insert().values(
                id="l-ann", name="ann", name_key="ann", password="!", role="labeler",
                pool="training", kinds=json.dumps(get_args(Kind)), created_at=0,
            )
        )  # fmt: skip
    yield db, accounts.account(db, "l-ann")
    db.close()


def by_hand_of_a_script(db: Database, account: Account) -> None:
    while held := assign.claim(db, account, "ranking"):
        task = assign.work(db, held)
        rated = {card.letter: taste(card.text) for card in task.cards}
        tiers = [[at for at, score in rated.items() if score == value] for value in (7, 5, 2)]
        answer = json.dumps({"tiers": tiers, "overall": rated}).encode()
        labels.submit(db, account, held.id, held.id, 0, answer, 1000)


def by_mouse_in_a_browser(db: Database, account: Account) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running, _serving(db) as site:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-gpu"]}
        browser = running.chromium.launch(**options)
        viewport = {"width": 1440, "height": 900}
        page = site.context(browser, account.id, viewport=viewport).new_page()
        page.set_default_timeout(15_000)
        page.goto(site.url)
        page.click("main form:has([name=kind][value=ranking]) button")
        for _ in range(PROMPTS):
            page.wait_for_selector("main[data-ready]")
            here = page.url
            for output in page.locator(".output").all():
                score = taste(output.locator(".text").inner_text())
                output.locator(f"[data-question=overall] [data-value='{score}']").click()
            page.click("[data-do=submit]")
            page.wait_for_url(lambda url, here=here: url != here)
        assert assign.claim(db, account, "ranking") is None
        browser.close()


def _serving(db: Database) -> Any:
    """A server in a thread, as the tests of the pages start it."""
    place = Path(__file__).parents[1] / "labeling" / "browser" / "serving.py"
    spec = importlib.util.spec_from_file_location("serving", place)
    assert spec is not None and spec.loader is not None
    module = sys.modules["serving"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.serving(db)


def export(db: Database, out: Path) -> dict[str, str]:
    assert cli.main(["export", "--db", str(db.url.database), "--out", str(out)]) == 0
    return {path.stem: str(path) for path in out.glob("*.jsonl")}


def accuracy(model: Path, files: dict[str, str], split: str) -> float:
    """Share of the clicked pairs that a reward model orders as they were clicked."""
    reward = load_reward(model)
    prompts = {p.id: p for p in read_records(Path(files["prompts"]), Prompt) if p.split == split}
    texts = {r.id: r.text for r in read_records(Path(files["responses"]), Response)}
    right = []
    for ranking in read_records(Path(files["rankings"]), Ranking):
        if ranking.prompt_id in prompts:
            ids = ranking.response_ids()
            asked = [prompts[ranking.prompt_id].text] * len(ids)
            score = dict(zip(ids, reward(asked, [texts[i] for i in ids]), strict=True))
            right += [score[better] > score[worse] for better, worse in ranking.pairs()]
    return sum(right) / len(right)


@pytest.mark.parametrize(
    "label",
    [by_hand_of_a_script, pytest.param(by_mouse_in_a_browser, marks=pytest.mark.browser)],
)
def test_a_reward_model_learns_what_was_clicked(label, world, work, tmp_path, capsys):
    db, account = work
    label(db, account)
    files = export(db, tmp_path / "out")
    clicked = read_records(Path(files["rankings"]), Ranking)
    assert len(clicked) == PROMPTS and all(len(r.pairs()) == 5 for r in clicked)  # one pair tied
    for one in read_records(Path(files["labels"]), Label):
        assert one.status == "accepted" and len(one.order) == 4
    assert accuracy(world.rm, files, "train") < 0.5  # it was taught another taste
    out = tmp_path / "rm"
    words = ["--batch-size", "8", "--lr", "1e-2", "--epochs", "8", "--threads", "1", "--seed", "3"]
    names = ("rankings", "responses", "prompts", "labelers")
    paths = [word for name in names for word in (f"--{name}", files[name])]
    assert cli.main(["rm", "--model", str(world.sft), "--out", str(out), *paths, *words]) == 0
    trained, held_back = accuracy(out, files, "train"), accuracy(out, files, "valid")
    with capsys.disabled():
        print(f"{label.__name__}: {trained:.3f} of clicked pairs, {held_back:.3f} held back")
    assert trained > 0.9
    assert held_back > 0.9  # clicked as well, of split valid
    (row,) = json.loads((out / "accuracy.json").read_text())["accuracy"]
    assert (row["split"], row["group"], row["rankings"]) == ("valid", "training", 6)
    assert row["model"]["mean"] == pytest.approx(held_back)


def test_what_sample_writes_is_what_a_batch_takes(world, tmp_path):
    for model in ("base", "sft"):
        out = str(tmp_path / f"{model}.jsonl")
        words = ["--prompts", str(world.prompts), "--split", "test", "--n", "2", "--out", out]
        model = ["--model", str(world.root / model), "--max-tokens", "8"]
        assert cli.main(["sample", *model, *words]) == 0
    plan = ["--name", "final", "--kind", "ranking", "--purpose", "evaluation", "--held-out", "1"]
    files = [str(tmp_path / "base.jsonl"), str(tmp_path / "sft.jsonl")]
    files = ["--prompts", str(world.prompts), "--responses", *files, "--baseline", "base"]
    assert cli.main(["batch", "--db", str(tmp_path / "labels.db"), *plan, *files]) == 0
    db = Database(tmp_path / "labels.db")
    (found,) = batches.progress(db)
    db.close()
    # every tenth of sixty prompts is of split test; the 48 of train and 6 of valid have no samples
    assert found.counts.tasks == 6
    assert found.counts.left_out == {
        "prompts of split train": 48,
        "prompts with fewer than 2 responses": 6,
    }


def test_dpo_and_sft_take_the_same_export(world, work, tmp_path):
    db, account = work
    by_hand_of_a_script(db, account)
    while held := assign.claim(db, account, "demonstration"):
        answer = {"text": f"It is {assign.work(db, held).prompt.split()[-1]}."}
        labels.submit(db, account, held.id, held.id, 0, json.dumps(answer).encode(), 1000)
    files = export(db, tmp_path / "out")
    common = ["--model", str(world.sft), "--prompts", files["prompts"], "--epochs", "1"]
    common += ["--threads", "1", "--batch-size", "8"]
    ranked = ["--rankings", files["rankings"], "--responses", files["responses"]]
    assert cli.main(["dpo", *common, *ranked, "--out", str(tmp_path / "dpo")]) == 0
    shown = ["--demonstrations", files["demonstrations"], "--out", str(tmp_path / "sft")]
    assert cli.main(["sft", *common, *shown]) == 0
    for name in ("dpo", "sft"):
        assert (tmp_path / name / "final" / "config.json").exists()
