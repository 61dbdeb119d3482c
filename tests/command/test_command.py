"""The command line as its users meet it: real runs in processes of their own, on a pipeline of random weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_pipelines

ROOT = Path(__file__).resolve().parents[2]
HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""Becomes the command that follows, and lets it hear SIGINT, which what a shell has in the background ignores."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return tiny_pipelines.save("sd", tmp_path_factory.mktemp("model") / "sd")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def cheap(pipeline: Path, out: Path, *more: str) -> list[str]:
    """Two variants of a tiny pipeline, prices alone."""
    return command(
        f"catalog.models.tiny_sd.source={pipeline}",
        "models=[tiny_sd]",
        "variants=[self_attention,neighborhood]",
        "resolutions=[64]",
        "metrics=[flops]",
        "tracker=none",
        f"out={out}",
        *more,
    )


def done(arguments: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **more}
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment)


def records(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (out / "records").glob("*.json")}


def test_a_run_ends_with_one_json_object_and_a_report_and_the_next_measures_nothing(pipeline, tmp_path):
    out = tmp_path / "run"
    first = done(cheap(pipeline, out))
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout.splitlines()[-1])
    assert summary["statuses"] == {"ok": 2}
    assert Path(summary["report"]).is_file()
    before = records(out)
    assert len(before) == 2
    second = done(cheap(pipeline, out))
    assert second.returncode == 0
    assert second.stdout.count("kept") == 2
    assert records(out) == before


def test_a_metric_that_a_record_lacks_is_added_to_it(pipeline, tmp_path):
    out = tmp_path / "run"
    done(cheap(pipeline, out, "variants=[self_attention]"))
    done(cheap(pipeline, out, "variants=[self_attention]", "metrics=[flops,projected_memory]"))
    (kept,) = [json.loads(text) for text in records(out).values()]
    assert {reading["metric"] for reading in kept["readings"]} == {"flops", "projected_memory"}


BAD = [
    (["models=[sd14]"], "model 'sd14' is not known: choose from"),
    (["variants=[mamba]"], "variant 'mamba' is not known: choose from"),
    (["metrics=[beauty]"], "metric 'beauty' is not known: choose from"),
    (["world=mars"], "world 'mars' is not known: choose from"),
    (["+sweep=everything"], "Could not find 'sweep/everything'"),
    (["resolutions=[65]"], "multiples of"),
    (["resolutions=[0]"], "has no pixels"),
    (["resolutions=[64x0]"], "has no pixels"),
    (["resolutions=[big]"], "is not a size"),
    (["resolutions=64"], "resolutions=64 is not a list: write resolutions=[64]"),
    (["models=tiny_sd"], "models=tiny_sd is not a list: write models=[tiny_sd]"),
    (["n=0"], "n=0 is not possible"),
    (["dtype=fp8"], "dtype 'fp8' is not known"),
    (["device=tpu7"], "device"),
    (["colour=red"], "colour"),
]


@pytest.mark.parametrize(("given", "sentence"), BAD, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_bad_input_gets_one_sentence_and_status_2(pipeline, tmp_path, given, sentence):
    answer = done(cheap(pipeline, tmp_path / "run", *given))
    assert answer.returncode == 2, answer.stderr
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(pipeline, tmp_path):
    (tmp_path / "file").write_text("")
    answer = done(cheap(pipeline, tmp_path / "file" / "run"))
    assert answer.returncode == 2
    assert "cannot be written" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    answer = done(cheap(tmp_path, tmp_path / "run"))
    assert answer.returncode == 2
    assert "is not a diffusers pipeline" in answer.stderr


def test_weights_that_are_cut_short_are_refused_and_named(tmp_path):
    folder = tiny_pipelines.save("sd", tmp_path / "sd")
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.write_bytes(whole.read_bytes()[:1000])
    answer = done(cheap(folder, tmp_path / "run", "metrics=[latency]"))
    assert answer.returncode == 2
    assert whole.name in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_tracking_server_that_does_not_answer_costs_a_sentence_and_no_record(pipeline, tmp_path):
    out = tmp_path / "run"
    given = cheap(pipeline, out, "tracker=mlflow", "tracker.uri=http://127.0.0.1:9")
    answer = done(given)
    assert answer.returncode == 0, answer.stderr
    assert "are tracked at the next run" in answer.stderr
    assert len(records(out)) == 2
    again = done([*given, "tracker.uri=null"])
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "mlflow.db").exists()


def test_a_hub_id_without_network_is_refused_in_a_sentence(tmp_path):
    given = ["models=[sd15]", "resolutions=[512]", "metrics=[latency]", "tracker=none", f"out={tmp_path}"]
    answer = done(command(*given), HF_HOME=str(tmp_path / "empty"))
    assert answer.returncode == 2
    assert "could not be fetched from the model hub" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_dry_run_predicts_every_case_and_measures_nothing(pipeline, tmp_path):
    sizes = ["resolutions=[64,128]", "metrics=[flops,latency]", "dry_run=true"]
    answer = done(cheap(pipeline, tmp_path / "run", *sizes))
    assert answer.returncode == 0, answer.stderr
    *rows, last = answer.stdout.splitlines()
    summary = json.loads(last)
    assert (summary["dry_run"], summary["cases"], summary["kept"]) == (True, 4, 0)
    assert summary["predicted_s"] > 0
    assert summary["predicted_memory"] > 0
    assert rows[1].split()[:3] == ["tiny_sd", "self_attention", "64"]
    assert all("assumed: half the rate of a matrix product now): flops, latency" in row for row in rows[1:])
    assert "predicted, nothing was measured: 4 of 4 cases to take" in answer.stderr
    assert not (tmp_path / "run").exists()


def struck(arguments: list[str], out: Path, blow: signal.Signals) -> tuple[int, str]:
    """Status and stderr of a run that is sent a signal once its first record is there."""
    hearing = [sys.executable, "-c", HEARING, *arguments]
    with subprocess.Popen(hearing, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            while not records(out) and running.poll() is None:
                time.sleep(0.02)
            running.send_signal(blow)
            _, said = running.communicate()
        finally:
            running.kill()
    return running.returncode, said


@pytest.mark.parametrize(("blow", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_was_finished_before_a_run_was_stopped_is_kept_and_not_measured_again(pipeline, tmp_path, blow, status):
    out = tmp_path / "run"
    sizes = "resolutions=[64,128,192,256,320,384,448,512]"
    ended, said = struck(cheap(pipeline, out, sizes), out, blow)
    assert ended == status, said
    assert "Traceback" not in said
    before = records(out)
    assert 1 <= len(before) < 16
    again = done(cheap(pipeline, out, sizes))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("kept") == len(before)
    after = records(out)
    assert len(after) == 16
    assert all(after[name] == text for name, text in before.items())


def test_help_answers_without_loading_torch():
    program = (
        "import sys; sys.argv = ['harness', '--help']\n"
        "import harness.__main__ as harness\n"
        "try: harness.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    answer = done([sys.executable, "-c", program])
    assert answer.returncode == 0, answer.stderr
    assert "resolutions" in answer.stdout


def test_recipes_are_compared_on_one_budget_each_a_row_of_its_own(pipeline, tmp_path):
    def compared(*more: str) -> subprocess.CompletedProcess[str]:
        world = [
            f"catalog.recipes.{name}.{setting}" for name in ("paper", "ours") for setting in ("samples=4", "batch=2")
        ]
        chosen = ["models=[tiny_sd]", "variants=[self_attention,depthwise]", "recipes=[paper,paper-6,ours]"]
        taught = [
            f"catalog.models.tiny_sd.source={pipeline}",
            "train.steps=3",
            "train.minutes=null",
            "train.sizes=[32]",
        ]
        settings = ["+sweep=distillation", "tracker=none", "n=2", f"out={tmp_path / 'out'}"]
        return done(command(*settings, *chosen, *taught, *world, *more), DELTABENCH_CACHE=str(tmp_path / "cache"))

    trained = compared("metrics=[]")
    assert trained.returncode == 0, trained.stderr
    rows = [f"tiny_sd depthwise-{recipe}" for recipe in ("paper", "paper-6", "ours")]
    kept = json.loads(trained.stdout.splitlines()[-1])["students"]
    assert list(kept) == rows
    assert len(set(kept.values())) == 3
    assert all(Path(path).with_suffix(".json").is_file() for path in kept.values())
    judged = compared("metrics=[feature_error]", "train.on_demand=false")
    assert judged.returncode == 0, judged.stderr
    readings = [json.loads(text)["readings"][0] for text in records(tmp_path / "out").values()]
    assert sorted(len(reading["details"].get("points", [])) > 1 for reading in readings) == [False, True, True, True]
    assert '<section id="learning">' in (tmp_path / "out" / "report.html").read_text()
    theirs = tmp_path / "conf" / "train" / "theirs.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("defaults:\n  - ours\n  - _self_\nstart: made\nsamples: 4\nbatch: 2\n")
    own = compared("recipes=[theirs]", "metrics=[]", "--config-dir", str(theirs.parents[1]))
    assert own.returncode == 0, own.stderr
    assert list(json.loads(own.stdout.splitlines()[-1])["students"]) == ["tiny_sd depthwise-theirs"]
    refused = compared("recipes=[theirs]")
    assert refused.returncode == 2
    assert refused.stderr == (
        "recipe 'theirs' is not known: choose from grafting, linfusion, lit, ours, paper, released, shipped, or give "
        "one a seed, as in paper-6\n"
    )


def test_a_reader_that_leaves_is_no_error_of_ours() -> None:
    """As in `python -m harness students | true`."""
    command = [sys.executable, "-m", "harness", "students"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        said = run.stderr.read()
    assert (run.returncode, said) == (141, "")
