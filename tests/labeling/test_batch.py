from __future__ import annotations

import pytest

from instil import config
from instil.errors import InstilError
from instil.jsonl import write_records
from instil.labeling import batch, batches
from instil.labeling.database import Database
from instil.records import Prompt, Response


def test_a_batch_from_the_command_line(tmp_path, capsys):
    prompts = [Prompt(id=f"p{i}", text=f"Say {i}.", split=s) for i, s in enumerate(["test", ""])]
    write_records(tmp_path / "prompts.jsonl", prompts)
    for policy in ("sft", "ppo"):
        responses = [
            Response(id=f"{policy}{i}", prompt_id=f"p{i}", text=f"I am ChatGPT {i}", policy=policy)
            for i in (0, 1)
        ]
        write_records(tmp_path / f"{policy}.jsonl", responses)
    words = (
        f"--db {tmp_path / 'labels.db'} --name final --kind ranking --purpose evaluation "
        f"--prompts {tmp_path / 'prompts.jsonl'} --training 2 --held-out 1 --baseline sft "
        f"--responses {tmp_path / 'sft.jsonl'} {tmp_path / 'ppo.jsonl'}"
    ).split()
    settings = config.from_command_line("batch", batch.Config, words)
    batch.run(settings)
    said = capsys.readouterr().out
    assert "1 tasks, 3 labels wanted" in said and "left out: 1 prompts of split train" in said
    assert "2 responses say which model wrote them" in said
    db = Database(tmp_path / "labels.db")
    (progress,) = batches.progress(db)
    db.close()
    assert (progress.name, progress.purpose, progress.baseline) == ("final", "evaluation", "sft")
    with pytest.raises(InstilError, match="has these very tasks already"):
        batch.run(settings)
