"""Batches: what jobs share is computed once, memory is kept, failures and interruptions lose nothing."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.batch import plan
from fkv.batch.folder import Folder
from fkv.batch.jobs import Job, Path, read
from fkv.batch.memory import Memory, claims
from fkv.batch.opening import opening_of
from fkv.batch.run import Batch, Done
from fkv.commands import batch as command
from fkv.commands import main
from fkv.parallel.overlap import Overlap
from fkv.policies import POLICIES
from fkv.report import frame_hash
from fkv.roles import to_json
from fkv.storyboard import STREAM
from fkv.stream import Stream
from fkv.transformer.causal import CausalTransformer
from fkv.video import Mp4Writer

OPENINGS = ("a red ball over the sea", "a blue star in the city")
ENDINGS = ("a green heart", "a pink box at night", "a white ball by day")
UNLIMITED = 1 << 40


def jobs_of_two_openings():
    """24 jobs, 16 of which share openings: one opening at chunk 3, the other at chunks 2 and 3."""
    shared = [
        {
            "name": f"{opening}-{ending}",
            "prompt": OPENINGS[opening],
            "policy": ("full", "forcing-kv:segments_per_frame=6")[opening],
            "seed": opening,
            "chunks": 4,
            "story": (f"3: {ENDINGS[ending % 2]}\n" if opening else "") + f"4: {ENDINGS[ending % 3]} {ending}",
        }
        for opening in range(2)
        for ending in range(8)
    ]
    alone = [
        {"name": f"alone-{i}", "prompt": f"a ball {i}", "policy": "sliding-window", "seed": i, "chunks": 2}
        for i in range(8)
    ]
    return [*shared, *alone]


def lines(jobs):
    return "\n".join(map(json.dumps, jobs))


def ended_by_name(batch):
    return {each.path.job.name: each for each in batch.run() if isinstance(each, Done)}


def one_by_one(model, path):
    stream = Stream(model, policies.parse(path.job.policy), path.prompt, path.job.seed, path.roles)
    chunks = []
    for index in range(len(path)):
        path.story.apply(index, {STREAM: stream})
        chunks.append(stream.step())
    return chunks


@pytest.fixture(scope="module")
def planned(small):
    paths = [Path.of(job, small) for job in read(lines(jobs_of_two_openings()))]
    return paths, {path.job.name: one_by_one(small, path) for path in paths}


@pytest.mark.parametrize("rows, share", [(1, False), (1, True), (8, False), (8, True)])
def test_24_jobs_show_what_they_show_one_by_one(small, planned, rows, share, monkeypatch):
    paths, alone = planned
    roots = claims(plan.grow(paths), Memory(small, share), UNLIMITED)
    passes = []
    flow = CausalTransformer._flow
    monkeypatch.setattr(
        CausalTransformer, "_flow", lambda self, rows, *rest: passes.append(len(rows)) or flow(self, rows, *rest)
    )
    batch = Batch(small, roots, rows, UNLIMITED, share)
    ended = ended_by_name(batch)
    assert set(ended) == set(alone) and not any(done.error for done in ended.values())
    assert plan.asked(paths) == 16 * 4 + 8 * 2
    assert batch.computed == sum(root.node.computed for root in roots) == (3 + 8) + (2 + 2 + 8) + 16
    assert sum(passes) == 3 * batch.computed, "two steps and the context pass of each chunk that was computed"
    assert rows == 1 or len(passes) < sum(passes) / 2
    for name, chunks in alone.items():
        made = list(Overlap(small)(ended[name].chunks))
        if rows == 1 and not share:
            assert frame_hash(made) == frame_hash(chunks)
        error = np.mean([np.square(a.video.astype(float) - b.video) for a, b in zip(made, chunks, strict=True)])
        assert error == 0 or 10 * np.log10(255**2 / error) > 60
        assert [chunk.prompt for chunk in made] == [chunk.prompt for chunk in chunks]


EVERY_POLICY = [
    f"{name}:segments_per_frame=6" if "segments_per_frame" in cls.__dataclass_fields__ else name
    for name, cls in POLICIES.items()
]
MORE_POLICIES = [
    "sliding-window:window_frames=6",
    "sliding-window:window_frames=6,fp8=true",
    "full:context_noise=0.05",
    "full without 0.1",
    "forcing-kv:segments_per_frame=6,dynamic_frames=6",
    "commit:6 longlive",
]


def test_policies_have_the_chunks_in_common_before_they_drop_anything(small):
    story = "2: a blue star\n4: re-cache = a pink box\n6: prompt = a green heart"
    without_recache = "2: a blue star\n6: prompt = a green heart"
    jobs = [
        {"name": f"job-{i}", "prompt": "a red ball over the sea", "policy": policy, "chunks": 6}
        for i, policy in enumerate([*EVERY_POLICY, *MORE_POLICIES])
    ]
    for job in jobs:
        cls = policies.parse(job["policy"])
        job["story"] = story if cls.caches == "shared" else without_recache
    paths = [Path.of(job, small) for job in read(lines(jobs))]
    tree = plan.grow(paths)
    computed = sum(node.computed for node in tree)
    batch = Batch(small, claims(tree, Memory(small, False), UNLIMITED), 1, UNLIMITED, False)
    ended = ended_by_name(batch)
    assert not any(done.error for done in ended.values()) and batch.computed == computed < plan.asked(paths)
    for path in paths:
        wanted, made = one_by_one(small, path), list(Overlap(small)(ended[path.job.name].chunks))
        assert frame_hash(made) == frame_hash(wanted), path.job.policy
        assert [(c.policy, c.events, c.kv_bytes) for c in made] == [(c.policy, c.events, c.kv_bytes) for c in wanted]


@pytest.mark.parametrize(
    "policy, chunks",
    [
        ("full", 10),
        ("sliding-window", 3),
        ("sliding-window:window_frames=6", 2),
        ("forcing-kv", 1),
        ("full without 0.1", 1),
        ("recompute", 0),
        ("mpcache", 0),
        ("mem-rope", 0),
    ],
)
def test_an_opening_ends_where_a_policy_drops_edits_or_chooses(policy, chunks, small):
    found = opening_of(small.geometry, policies.parse(policy), small.roles, 10, torch.float32)
    assert found.chunks == chunks


def shape(nodes):
    return [(len(node), sorted(path.job.name for path in node.paths), shape(node.children)) for node in nodes]


def path(name, *keys):
    return Path(Job(name, "a ball", chunks=1), "", None, tuple((key,) for key in keys))


def test_the_prefix_tree_has_a_node_for_everything_in_common():
    paths = [path("a", 1, 2, 3, 4), path("b", 1, 2, 3, 5, 6), path("c", 1, 2, 7), path("d", 8), path("e", 1, 2, 7)]
    tree = plan.grow(paths)
    assert plan.asked(paths) == 16 and sum(node.computed for node in tree) == 2 + 1 + 1 + 2 + 1 + 1
    assert sorted(shape(tree)) == [
        (1, ["d"], []),
        (
            2,
            ["a", "b", "c", "e"],
            [(1, ["a", "b"], [(2, ["b"], []), (1, ["a"], [])]), (1, ["c", "e"], [(0, ["c"], []), (0, ["e"], [])])],
        ),
    ]


def test_one_level_moves_a_group_up_where_that_saves_more_than_it_repeats():
    # Two chunks of all; one group of four jobs shares eight more, the other of two shares one more.
    many = [path(f"m{i}", 0, 0, *[1] * 8, 10 + i) for i in range(4)]
    few = [path(f"f{i}", 0, 0, 2, 10 + i) for i in range(2)]
    tree = plan.grow([*many, *few])
    assert sum(node.computed for node in tree) == 2 + (8 + 4) + (1 + 2)
    assert plan.computed_with_one_level(tree) == (2 + 8 + 4) + (2 + 2 * 1 + 2)
    assert plan.computed_with_one_level(plan.grow(few)) == sum(node.computed for node in plan.grow(few))


@pytest.mark.parametrize("share", [False, True])
def test_memory_stays_within_the_budget_and_rows_are_as_many_as_fit(small, planned, share):
    paths, _ = planned
    memory = Memory(small, share)
    most = max(memory.of_path(path) for path in paths)
    for budget in (most, 3 * most, UNLIMITED):
        batch = Batch(small, claims(plan.grow(paths), memory, budget), 8, budget, share)
        assert len(ended_by_name(batch)) == 24 and batch.kv_bytes_peak <= budget
        if budget == most:
            tight = batch.kv_bytes_peak, batch.computed
    assert batch.kv_bytes_peak > 2 * tight[0] and batch.computed <= tight[1]
    with pytest.raises(ValueError, match=r"line \d+: '0-0' needs [\d,]+ bytes for K and V.*raise --kv-budget"):
        claims(plan.grow(paths), memory, most - 1)


def test_one_job_that_fails_ends_no_other(small):
    jobs = jobs_of_two_openings()[:3]
    jobs[1] |= {"story": "3: A = recompute"}
    paths = [Path.of(job, small) for job in read(lines(jobs))]
    batch = Batch(small, claims(plan.grow(paths), Memory(small, False), UNLIMITED), 4, UNLIMITED, False)
    ended = ended_by_name(batch)
    assert "start a new stream" in str(ended["0-1"].error)
    assert [len(ended[name].chunks) for name in ("0-0", "0-2")] == [4, 4]


def test_the_command_writes_videos_and_goes_on_where_it_was_stopped(small_by_default, tmp_path, capsys, monkeypatch):
    file, report, sheet = tmp_path / "jobs.jsonl", tmp_path / "report.json", tmp_path / "sheet.png"
    file.write_text(lines(jobs_of_two_openings()[6:10]))

    def run(out, *more):
        return main.main(["batch", str(file), "--out", str(tmp_path / out), "--json", str(report), *more])

    assert run("whole", "--sheet", str(sheet)) == 0
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    found = json.loads(report.read_text())
    assert found["chunks_asked"] == 16 and found["chunks_computed"] == (3 + 2) + (2 + 4) and found["timing"] == "shared"
    assert not any("fps" in key for key in found)
    assert run("alone", "--alone") == 0
    plain = json.loads(report.read_text())
    assert plain["chunks_computed"] == plain["chunks_asked"] == 16
    whole, alone = (json.loads((tmp_path / out / "manifest.json").read_text()) for out in ("whole", "alone"))
    assert whole == alone
    assert "11 of 16 chunks to compute: 31.2% saved" in capsys.readouterr().err

    write, written = Mp4Writer.write, []

    def stop(self, frames):
        written.append(frames)
        if len(written) == 6:
            raise KeyboardInterrupt
        write(self, frames)

    monkeypatch.setattr(Mp4Writer, "write", stop)
    assert run("stopped") == 130
    assert "stopped after 1 of 4 jobs; the same command goes on" in capsys.readouterr().err
    with (tmp_path / "stopped" / "records.jsonl").open("a") as records:
        records.write('{"job": {"na')
    monkeypatch.undo()
    assert run("stopped") == 0
    assert "1 of 4 jobs are finished already" in capsys.readouterr().err
    whole, stopped = (json.loads((tmp_path / out / "manifest.json").read_text()) for out in ("whole", "stopped"))
    assert whole == stopped and [row["job"]["name"] for row in whole["jobs"]] == ["0-6", "0-7", "1-0", "1-1"]
    assert not list((tmp_path / "stopped").glob(".*.mp4"))
    records = (tmp_path / "stopped" / "records.jsonl").read_text().splitlines()
    assert len(list(map(json.loads, records))) == 4, "the torn line is gone"

    file.write_text(file.read_text().replace('"seed": 1', '"seed": 5'))
    assert run("stopped") == 2 and "holds '1-0' of another run; name another folder" in capsys.readouterr().err
    assert run("whole", "--rows", "4") == 2 and "exact True, not False (--rows or --share)" in capsys.readouterr().err
    assert run("whole", "--steps", "1") == 2 and "timesteps [1000.0, 5" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_in_a_sentence_and_keeps_what_is_finished(
    small_by_default, tmp_path, capsys, monkeypatch
):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    file.write_text(lines([{"prompt": f"ball {i}", "policy": "full", "chunks": 1} for i in range(3)]))
    write, written = Mp4Writer.write, []

    def full(self, frames):
        written.append(frames)
        if len(written) == 2:
            raise OSError(28, "No space left on device", ".job-002.mp4")
        write(self, frames)

    monkeypatch.setattr(Mp4Writer, "write", full)
    assert main.main(["batch", str(file), "--out", str(out)]) == 2
    told = "cannot write .job-002.mp4: No space left on device; stopped after 1 of 3 jobs; the same command goes on"
    assert told in capsys.readouterr().err
    assert sorted(each.name for each in out.iterdir()) == ["job-001.mp4", "records.jsonl"]

    def gone(self, path, fps):
        raise ValueError(f"cannot write the video to {path}: No such file or directory")

    monkeypatch.setattr(Mp4Writer, "__init__", gone)
    assert main.main(["batch", str(file), "--out", str(out)]) == 2
    assert "No such file or directory; stopped after 1 of 3 jobs; the same command" in capsys.readouterr().err


def test_a_job_whose_video_cannot_be_decoded_fails_alone(small_by_default, tmp_path, capsys, monkeypatch):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    file.write_text(lines([{"prompt": f"ball {i}", "policy": "full", "chunks": 1} for i in range(2)]))
    decode, tried = Overlap._decode, []

    def fails_once(self, chunk):
        tried.append(chunk)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return decode(self, chunk)

    monkeypatch.setattr(Overlap, "_decode", fails_once)
    assert main.main(["batch", str(file), "--out", str(out)]) == 1
    ((failed, reason),) = json.loads(capsys.readouterr().out)["failed"].items()
    assert reason == "out of memory"
    rows = json.loads((out / "manifest.json").read_text())["jobs"]
    assert [("error" in row) == (row["job"]["name"] == failed) for row in rows] == [True, True]


def test_a_report_is_not_lost_where_the_manifest_cannot_be_written(small_by_default, tmp_path, capsys, monkeypatch):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    file.write_text(lines([{"prompt": "a ball", "policy": "full", "chunks": 1}]))
    arguments = ["batch", str(file), "--out", str(out)]
    assert main.main(arguments) == 0
    before = (out / "manifest.json").read_bytes()
    capsys.readouterr()

    def full(path, data):
        path.open("wb").close()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert main.main(arguments) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["jobs"] == 1 and "No space left on device" in printed.err
    assert (out / "manifest.json").read_bytes() == before, "no manifest is half written"


@pytest.mark.parametrize("field", ["latent", "frames_per_chunk", "checkpoint", "decoder", "compiled"])
def test_a_folder_is_not_continued_with_other_settings(field, small, tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    model = dataclasses.replace(small, weights=(weights,))
    job = Path.of(Job("one", prompt="a ball", policy="full", chunks=1), model)
    out = Folder(tmp_path / "out", model, exact=True)
    out.add(Done(job, (Stream(model, policies.make("full"), "a ball", decode=False).step(),)))
    assert set(Folder(tmp_path / "out", model, exact=True).finished([job])) == {"one"}
    other = {"latent": (4, 8, 8), "frames_per_chunk": 2}.get(field)
    if field == "checkpoint":
        weights.write_bytes(b"another")
    elif field == "compiled":
        monkeypatch.setattr(CausalTransformer, "compiled", property(lambda transformer: True))
    else:
        model = dataclasses.replace(model, **({field: other} if other else {}))
    with pytest.raises(ValueError, match=f"holds a run with {field} .*, not .*; name another folder"):
        Folder(tmp_path / "out", model, True, None, "small" if field == "decoder" else "own").finished([job])


def test_a_job_that_is_called_like_a_part_of_another_keeps_its_video(small, tmp_path):
    out = Folder(tmp_path, small, exact=True)
    chunk = Stream(small, policies.make("full"), "a ball", decode=False).step()
    for name in ("x.part", "x"):
        out.add(Done(Path.of(Job(name, prompt="a ball", policy="full", chunks=1), small), (chunk,)))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["records.jsonl", "x.mp4", "x.part.mp4"]


def test_a_sheet_takes_frames_of_short_and_long_videos(tmp_path):
    video = np.repeat(np.arange(5, dtype=np.uint8)[:, None, None, None] * 50, 3, axis=3)
    with Mp4Writer(tmp_path / "video.mp4", 16) as writer:
        writer.write(np.broadcast_to(video, (5, 32, 32, 3)))
    means = command._frames_at(tmp_path / "video.mp4", [0, 2, 4, 9]).mean((1, 2, 3))
    assert np.abs(means - [0, 100, 200, 255]).max() < 5


def test_a_guard_fails_jobs_whose_videos_show_what_is_forbidden_and_no_other(
    small_by_default, tmp_path, capsys, monkeypatch
):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    file.write_text(lines([{"prompt": f"ball {i}", "policy": "full", "chunks": 2} for i in range(2)]))
    (tmp_path / "shy.py").write_text(
        "seen = []\ndef likes(video, prompt):\n    seen.append(1)\n    return len(seen) != 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["batch", str(file), "--out", str(out)]
    assert main.main([*arguments, "--forbid", "shy:likes"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["forbidden"] == "shy:likes" and "no safety guarantee" in told["note"]
    (failed,) = told["failed"]
    assert (
        told["failed"][failed]
        == "the run ends before a chunk that shows what shy:likes rejects, which is forbidden here"
    )
    (shown,) = {"job-001", "job-002"} - {failed}
    assert sorted(each.name for each in out.iterdir()) == [f"{shown}.mp4", "manifest.json", "records.jsonl"]
    assert main.main(arguments) == 2 and "--forbid" in capsys.readouterr().err, "no video of an unguarded run joins it"


def test_a_folder_of_another_run_is_left_alone(small_by_default, small, stand_in, tmp_path, capsys):
    file, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    arguments = ["batch", str(file), "--out", str(out)]
    file.write_text(lines([{"prompt": "a ball", "policy": "full", "chunks": 1}]))
    assert main.main(arguments) == 0
    before = {each.name: each.read_bytes() for each in out.iterdir()}
    other = dataclasses.replace(small, name="other")
    stand_in(other)
    assert main.main(arguments) == 2
    assert "holds a run with model 'small', not 'other'; name another folder" in capsys.readouterr().err
    assert before == {each.name: each.read_bytes() for each in out.iterdir()}
    (out / "records.jsonl").unlink()
    assert main.main(arguments) == 2
    assert "holds a manifest without records; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "there is no job in the file; write one a line, such as"),
        ("\n{'prompt': 1}", "line 2: this is no JSON .*; a job looks like"),
        ('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: .*nested too deeply"),
        ("[1]", "line 1: a job is a JSON object such as"),
        (
            '{"promt": "a ball", "chunks": 1}',
            "there is no field 'promt'; a job has name, prompt, story, policy",
        ),
        ('{"prompt": "a ball"}', 'line 1: the length is missing; add "chunks": 14'),
        ('{"prompt": "a ball", "chunks": 0}', "line 1: the number of chunks must be a whole number from 1"),
        ('{"prompt": "a ball", "chunks": 1, "seed": "x"}', "line 1: the seed must be a whole number"),
        ('{"prompt": 3, "chunks": 1}', "line 1: prompt must be a text, not 3"),
        ('{"chunks": 1}', "line 1: the prompt is empty"),
        ('{"prompt": "a ball", "chunks": 1, "policy": "none"}', "line 1: there is no policy 'none'"),
        ('{"prompt": "a ball", "chunks": 1, "name": "../x"}', "line 1: name '../x' must be a file name"),
        ('{"prompt": "a", "chunks": 1, "name": "x"}\n' * 2, "line 2: the name 'x' is that of line 1; give it another"),
        ('{"prompt": "a", "chunks": 1, "story": "x"}', "line 1: line 1 of the storyboard"),
        ('{"prompt": "a", "chunks": 1, "roles": ["x"]}', "line 1: roles must be a text"),
        ('{"prompt": "a\u2028b", "chunks": 0}', "line 1: the number of chunks must be a whole number from 1"),
    ],
)
def test_jobs_that_cannot_be_read_are_refused_by_line(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


@pytest.mark.parametrize(
    "job, message",
    [
        (
            {"chunks": 2, "story": "3: a blue star"},
            "line 1: line 1 of the storyboard: chunk 3 comes after the last",
        ),
        ({"chunks": 2, "story": "1: a blue star"}, "line 1: the storyboard begins with a prompt; leave out the job's"),
        ({"chunks": 2, "story": "2: steps = 12"}, "line 1: the number of steps must be a whole number from 1 to 2"),
        ({"chunks": 2, "policy": "full without 9.9"}, "line 1: there is no head 9 in layer 9"),
        ({"chunks": 2, "policy": "forcing-kv:segments_per_frame=7"}, "line 1: 7 segments do not divide the 12 tokens"),
        ({"chunks": 2, "roles": "missing.json"}, "line 1: cannot read head roles from missing.json"),
    ],
)
def test_jobs_that_do_not_fit_the_model_are_refused_by_line(job, message, small):
    with pytest.raises(ValueError, match=message):
        Path.of(read(json.dumps({"prompt": "a ball", **job}))[0], small)


def test_scenes_say_how_long_a_job_is(small):
    (job,) = read(json.dumps({"story": "a red ball [2] | a blue star [3c]"}))
    found = Path.of(job, small)
    assert (found.prompt, len(found)) == ("a red ball", 5)


def test_jobs_have_roles_of_their_own(small, tmp_path):
    files = {name: tmp_path / f"{name}.json" for name in ("same", "other")}
    for name, roles in (("same", small.roles), ("other", small.roles.flipped(1, 3))):
        files[name].write_text(json.dumps(to_json(roles)))
    job = {"prompt": "a red ball", "policy": "forcing-kv:segments_per_frame=6", "chunks": 3}
    jobs = [job, {**job, "roles": str(files["same"])}, {**job, "roles": str(files["other"])}]
    paths = [Path.of(each, small) for each in read(lines(jobs))]
    batch = Batch(small, claims(plan.grow(paths), Memory(small, False), UNLIMITED), 1, UNLIMITED, False)
    hashes = [frame_hash(list(Overlap(small)(each.chunks))) for each in ended_by_name(batch).values()]
    assert batch.computed == 8, "the first chunk of those with equal heads"
    assert sorted(map(hashes.count, hashes)) == [1, 2, 2]
    digests = [path.record().get("roles_sha256") for path in paths]
    assert digests[0] is None and digests[1] != digests[2]
    with pytest.raises(ValueError, match="line 1: .*layer"):
        files["other"].write_text(json.dumps({"num_layers": 1, "num_heads": 4, "static_heads": [[0]]}))
        Path.of(read(lines(jobs[2:]))[0], small)


@pytest.mark.parametrize("text, size", [("2GiB", 2 << 30), ("500 MB", 500_000_000), ("1.5k", 1500), ("7", 7)])
def test_sizes_are_read(text, size):
    assert command._size(text) == size


def test_bad_options_are_refused(small_by_default, tmp_path, capsys):
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"prompt": "a ball", "chunks": 1, "policy": "full"}')
    for options, message in (
        (["--rows", "0"], "--rows must be at least 1, not 0"),
        (["--kv-budget", "lots"], "--kv-budget is a size such as 2GiB"),
        (["--kv-budget", "9" * 400], "--kv-budget is a size such as 2GiB"),
        (["--kv-budget", "0.4"], "--kv-budget is a size such as 2GiB"),
        (["--kv-budget", "1kB"], "line 1: 'job-001' needs"),
    ):
        assert main.main(["batch", str(file), "--out", str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err
    assert main.main(["batch", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "cannot read the jobs" in capsys.readouterr().err
    assert torch.get_num_threads() > 0
