"""What a profile of torch_npu says: each rule on rows of the form that its profiler writes."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.core.errors import BadRequest
from karez.tuning import json_stream, profile_analysis
from karez.tuning.hotspots import Hotspot

HEAD = (
    "Step Id,Device_id,Model ID,Task ID,Stream ID,Name,Type,OP State,Accelerator Core,"
    "Start Time(us),Duration(us),Wait Time(us),Block Num,Input Shapes,Input Data Types\n"
)
STEPS = (
    "Device_id,Step,Computing,Communication(Not Overlapped),Overlapped,Communication,Free,Stage,"
    "Bubble,Communication(Not Overlapped and Exclude Receive),Preparing\n"
)


def kernel(
    kind: str,
    us: float,
    *,
    core: str = "AI_CORE",
    state: str = "static",
    shapes: str = "16,256",
    types: str = "FLOAT16",
) -> str:
    return f'1,0,1,1,2,aclnn{kind},{kind},{state},{core},1.0,{us},0.5,20,"{shapes}",{types}\n'


def wrote(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "host_1_2_ascend_pt" / profile_analysis.OUTPUT
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("_csv", ".csv").replace("_json", ".json")).write_text(text)
    return tmp_path


def kernels(tmp_path: Path, *rows: str) -> dict[str, Hotspot]:
    found = profile_analysis.look(wrote(tmp_path, kernel_details_csv=HEAD + "".join(rows)))
    return {one.rule: one for one in found}


FINE = kernel("MatMulV2", 100, shapes="512,768;768,1024")


def test_a_fast_profile_has_no_hotspots(tmp_path: Path) -> None:
    rows = [FINE, kernel("Add", 3), kernel("hcom_allReduce_", 900, core="COMMUNICATION")]
    assert kernels(tmp_path, *rows, kernel("FlashAttentionScore", 9, shapes="2,8,64,128")) == {}


@pytest.mark.parametrize(
    ("rule", "rows", "word"),
    [
        ("ai-cpu", [kernel("Sort", 50, core="AI_CPU", types="INT64;FLOAT")], "INT64"),
        ("ai-cpu", [kernel("Cast", 50, core="AI_CPU", types="DT_DOUBLE")], "DOUBLE"),
        ("dynamic-shape", [kernel("Slice", 2, state="dynamic")], "planned again"),
        ("layout", [kernel("TransData", 30)], "layout"),
        ("layout", [kernel("Transpose", 30)], ""),
        ("odd-size", [kernel("MatMulV2", 90, shapes="512,768;768,1001")], "1001"),
        ("odd-head", [kernel("FlashAttentionScore", 9, shapes="2,8,64,80")], "80"),
        (
            "fused-attention",
            [
                kernel("BatchMatMulV2", 9),
                kernel("Muls", 1),
                kernel("SoftmaxV2", 4),
                kernel("BatchMatMulV2", 9),
            ],
            "scaled_dot_product",
        ),
    ],
)
def test_kernels(tmp_path: Path, rule: str, rows: list[str], word: str) -> None:
    found = kernels(tmp_path, FINE, *rows)
    assert set(found) == {rule}
    assert word in found[rule].reason
    assert 0 < found[rule].share < 1
    assert found[rule].time_us > 0


def test_idle_and_exposed_time_of_steps_is_reported(tmp_path: Path) -> None:
    busy = STEPS + "0,1,900,40,10,50,60,1000,0,40,10\n"
    idle = STEPS + "0,1,500,200,10,210,300,1000,0,200,10\n" * 2
    assert profile_analysis.look(wrote(tmp_path / "a", step_trace_time_csv=busy)) == []
    found = profile_analysis.look(wrote(tmp_path / "b", step_trace_time_csv=idle))
    assert [(one.rule, one.share) for one in found] == [
        ("idle", 0.3),
        ("exposed-communication", 0.2),
    ]


def event(name: str, us: float) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": 1, "tid": 1, "ts": "1.5", "dur": us, "args": {}}


@pytest.mark.parametrize(
    ("rule", "slow", "fine"),
    [
        (
            "slow-loader",
            [event("enumerate(DataLoader)#_Single.__next__", 20_000)],
            [event("enumerate(DataLoader)#_Single.__next__", 900)],
        ),
        ("garbage", [event("GC", 5000)], [event("GC", 20)]),
        ("sync-batchnorm", [event("SyncBatchNorm", 9)] * 21, [event("SyncBatchNorm", 9)] * 20),
        (
            "blocking",
            [event("Node@launch", 1), event("AscendCL@aclrtSynchronizeStream", 9)] * 9,
            [event("Node@launch", 1)] * 9 + [event("AscendCL@aclrtSynchronizeStream", 9)],
        ),
        ("memory", [event("AscendCL@aclrtFree", 6000)] * 2, [event("AscendCL@aclrtFree", 60)]),
        (
            "fused-optimizer",
            [event("Optimizer.step#AdamW.step", 3000)],
            [event("Optimizer.step#NpuFusedAdamW.step", 300)],
        ),
    ],
)
def test_the_trace(tmp_path: Path, rule: str, slow: list[Any], fine: list[Any]) -> None:
    found = profile_analysis.look(wrote(tmp_path / "a", trace_view_json=json.dumps(slow)))
    assert [one.rule for one in found] == [rule]
    assert profile_analysis.look(wrote(tmp_path / "b", trace_view_json=json.dumps(fine))) == []


def collective(link: str, size_mb: float) -> dict[str, Any]:
    return {
        "1": {
            "collective": {
                "hcom_allReduce__1": {
                    "Communication Bandwidth Info": {
                        link: {"Transit Size(MB)": size_mb, "Transit Time(ms)": 2.0}
                    }
                },
                "Total Op Info": {
                    "Communication Bandwidth Info": {
                        link: {"Transit Size(MB)": size_mb, "Transit Time(ms)": 2.0}
                    }
                },
            }
        }
    }


@pytest.mark.parametrize(
    ("link", "size_mb", "rules"),
    [
        ("RDMA", 0.5, {"small-packets"}),
        ("HCCS", 3.0, {"small-packets", "odd-packets"}),
        ("SDMA", 33.554432, set()),
        ("RDMA", 8.0, set()),
    ],
)
def test_communication(tmp_path: Path, link: str, size_mb: float, rules: set[str]) -> None:
    text = json.dumps(collective(link, size_mb))
    found = profile_analysis.look(wrote(tmp_path, communication_json=text))
    assert {one.rule for one in found} == rules
    assert all(one.count == 1 for one in found)


@pytest.mark.parametrize("spaced", [(",", ":"), (", ", ": "), (",\n ", ": ")])
def test_a_trace_is_read_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, spaced: tuple[str, str]
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 97)
    many = [{**event(f"n{i}", i), "args": {"text": "]},{\\" * (i % 7)}} for i in range(300)]
    text = json.dumps(many, separators=spaced)
    assert list(json_stream.events(io.StringIO(text))) == many
    assert list(json_stream.events(io.StringIO("[ ]"))) == []
    with pytest.raises(ValueError, match=r"."):
        list(json_stream.events(io.StringIO(text[:-40])))


def test_memory_does_not_grow_with_a_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 1 << 16)
    peaks = []
    for count in (5_000, 20_000):
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps([event("aten::add", 1.0)] * count))
        tracemalloc.start()
        with path.open() as file:
            assert sum(1 for _ in json_stream.events(file)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({}, "none of"),
        ({"trace_view_json": "{}"}, "cannot be read"),
        ({"kernel_details_csv": "a,b\n1,2\n"}, "cannot be read"),
        ({"communication_json": "[1]"}, "cannot be read"),
        ({"trace_view_json": "[{"}, "cannot be"),
        ({"step_trace_time_csv": "Step;Free\n1;2\n"}, "cannot be read"),
        ({"communication_json": "[" * 100_000}, "cannot be read"),
    ],
)
def test_a_profile_that_cannot_be_read(tmp_path: Path, files: dict[str, str], word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        profile_analysis.look(wrote(tmp_path, **files))


def test_no_profile_or_several_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="none"):
        profile_analysis.look(tmp_path)
    wrote(tmp_path, trace_view_json="[]")
    (tmp_path / "other_ascend_pt" / profile_analysis.OUTPUT).mkdir(parents=True)
    with pytest.raises(BadRequest, match="other_ascend_pt"):
        profile_analysis.look(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import torch\nfor b in d:\n    print(b.item())\n")
    folder = wrote(tmp_path / "prof", trace_view_json=json.dumps([event("GC", 5000)]))
    words = ["migrate", "advise", str(tmp_path / "a.py"), "--profile", str(folder)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert "garbage" in shown.stdout
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [one["rule"] for one in told["profile"]] == ["garbage"]
    assert [one["rule"] for one in told["source"]] == ["sync-in-loop"]
