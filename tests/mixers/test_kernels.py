"""The rule that chooses the fused kernels, what it says, and the kernels themselves: interpreted, and compiled."""

import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from own_process import passes_alone

from deltaconv import DeltaConvBlock, kernels
from harness.seats.mixer import BadInput, Unavailable

GRID = (6, 7)
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton: pip install triton")


@needs_triton
def test_the_kernels_are_the_definition_in_the_interpreter() -> None:
    passes_alone(Path(__file__).with_name("interpreted_kernels.py"), TRITON_INTERPRET="1")


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("settings", [(320, 7, (1.0, 0.5), "scaled"), (1152, 13, (1.0, 0.5, 1 / 3), "sigmoid")])
def test_on_cuda_forward_and_gradients_are_those_of_the_definition(
    settings: tuple[int, int, tuple[float, ...], str], dtype: torch.dtype
) -> None:
    grid, channels = (33, 20), settings[0]
    torch.manual_seed(0)
    block = DeltaConvBlock(*settings).cuda().to(dtype)  # type: ignore[arg-type]
    for parameter in block.gates.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x_BNC = torch.randn(2, grid[0] * grid[1], channels, device="cuda", dtype=dtype, requires_grad=True)
    given = block(x_BNC, grid)
    gradients = torch.autograd.grad(given.float().sum(), (x_BNC, *block.parameters()))
    block, x_BNC = block.double(), x_BNC.detach().double().requires_grad_()
    expected = block.definition(x_BNC, grid)
    wanted = torch.autograd.grad(expected.sum(), (x_BNC, *block.parameters()))
    for ours, theirs in zip((given, *gradients), (expected, *wanted), strict=True):
        # Eight roundings of what is stored; in fp32 the order of a few thousand additions.
        gap = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert gap < max(8 * torch.finfo(dtype).eps, 1e-4)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@torch.no_grad()
def test_auto_leaves_the_cpu_and_the_meta_device_to_torch(device: str) -> None:
    reduced = torch.empty(1, 42, 8, device=device)
    assert not kernels.fused("auto", reduced, 3)
    block = DeltaConvBlock(16, 3).to(device)
    assert block(torch.zeros(1, 42, 16, device=device), GRID).device.type == device


def test_what_only_prices_never_meets_a_kernel() -> None:
    assert not kernels.fused("triton", torch.empty(1, 42, 8, device="meta"), 3)


@needs_triton
def test_kernels_that_were_asked_for_on_the_cpu_are_unavailable_with_the_remedy() -> None:
    sentence = "the ∆ConvBlock cannot run its Triton kernels: they need a CUDA device, not cpu: set device=cuda; or set"
    with pytest.raises(Unavailable, match=f"^{sentence} backend to auto or torch$"):
        DeltaConvBlock(16, 3, backend="triton")(torch.zeros(1, 42, 16), GRID)


@pytest.mark.parametrize(
    ("dtype", "kernel", "reason"),
    [
        (torch.float64, 3, "they compute in fp32, fp16 and bf16, not in float64: choose one of these"),
        (torch.float16, 27, "kernel_size 27 is above 25, their largest: choose a smaller one"),
        (torch.bfloat16, 25, ""),
    ],
)
def test_what_the_kernels_do_not_take_is_said(dtype: torch.dtype, kernel: int, reason: str) -> None:
    assert kernels.obstacle(dtype, kernel) == reason


def test_a_machine_without_triton_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.misplaced("cuda", 0) == "Triton is not installed: pip install 'triton>=3.4'"
    assert kernels.rule("auto", torch.float16, 3) == "torch operators (Triton is not installed)"


@needs_triton
def test_a_triton_without_tuples_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.__version__", "3.2.0")
    assert kernels.misplaced("cuda", 0) == "Triton 3.2.0 is too old: pip install 'triton>=3.4'"
    assert kernels.rule("auto", torch.float16, 3) == "torch operators (Triton 3.2.0 is too old)"


@needs_triton
def test_an_old_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert kernels.misplaced("cuda", 0) == "they need compute capability 8.0, this device has 7.5: use another"
    assert kernels.misplaced("mps", None) == "they need a CUDA device, not mps: set device=cuda"


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^backend 'cudnn' is unknown: choose auto, torch or triton$"):
        DeltaConvBlock(16, 3, backend="cudnn")  # type: ignore[arg-type]


@needs_triton
@pytest.mark.parametrize(
    ("backend", "dtype", "said"),
    [
        ("auto", torch.float16, "fused Triton kernels on CUDA from compute capability 8.0 on, torch operators else"),
        ("auto", torch.float64, "torch operators (they compute in fp32, fp16 and bf16, not in float64: choose one of"),
        ("torch", torch.float16, "torch operators"),
        ("triton", torch.float16, "fused Triton kernels"),
    ],
)
def test_the_record_states_the_rule(backend: str, dtype: torch.dtype, said: str) -> None:
    block = DeltaConvBlock(16, 3, backend=backend).to("meta", dtype)  # type: ignore[arg-type]
    assert block.note((6, 7)).startswith(f"released form; {said}")


@pytest.mark.parametrize("scales", [(1.0, 0.5), (0.5,), (1.0, 1.0)])
def test_the_bits_are_the_same_whether_a_gradient_is_recorded_or_a_buffer_overwritten(
    scales: tuple[float, ...],
) -> None:
    torch.manual_seed(0)
    block, x_BNC = DeltaConvBlock(16, 3, scales), torch.randn(2, 42, 16)
    recorded, before = block(x_BNC, GRID), x_BNC.clone()
    with torch.no_grad():
        assert torch.equal(block(x_BNC, GRID), recorded)
        assert torch.equal(block(x_BNC, GRID), recorded)
    assert torch.equal(x_BNC, before)


MAPS = {"maps", "taps", "bias", "kept", "out", "small", "grads"}
PLAIN = {"KEEP": False, "ADD": True, "FLIP": True, "GATE": "plain"}
GATED = {"KEEP": True, "ADD": False, "FLIP": False, "GATE": "sigmoid"}
TILE = {"COLUMNS": 16, "CHANNELS": 32}
STRIP = {"ROWS": 8, "COLUMNS": 8, "CHANNELS": 32}


@needs_triton
@pytest.mark.parametrize(
    ("file", "kernel", "element", "constants"),
    [
        ("forward", "depthwise", "fp16", {"K": 3, **GATED, **STRIP}),
        ("forward", "depthwise", "bf16", {"K": 3, **PLAIN, **STRIP}),
        ("forward", "pool", "fp16", {"TALL": 2, "WIDE": 3, **TILE}),
        ("forward", "upsample", "bf16", {"ADD": True, **TILE}),
        ("backward", "gate", "fp16", {"GATE": "scaled", "TALL": 5, "WIDE": 5, **TILE}),
        ("backward", "gate", "fp32", {"GATE": "sigmoid", "TALL": 1, "WIDE": 1, **TILE}),
        ("backward", "unpool", "bf16", {"ADD": False, **TILE}),
        ("backward", "weigh", "fp16", {"K": 3, "TAPS": 4, **TILE, "COLUMNS": 4}),
        # Triton compiles a size of 1 as a constant, so a single row or column is another program.
        ("forward", "pool", "fp32", {"TALL": 1, "WIDE": 3, "height": 1, "small_height": 1, **TILE}),
        ("forward", "upsample", "fp16", {"ADD": False, "small_height": 1, "small_width": 1, **TILE}),
        ("backward", "gate", "bf16", {"GATE": "scaled", "TALL": 3, "WIDE": 1, "width": 1, "small_width": 1, **TILE}),
        ("backward", "unpool", "fp16", {"ADD": True, "small_height": 1, "width": 1, "small_width": 1, **TILE}),
    ],
)
def test_a_kernel_compiles_for_compute_capability_9_without_a_device(
    file: str, kernel: str, element: str, constants: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(importlib.import_module(f"deltaconv.kernels_{file}"), kernel)
    kinds = dict.fromkeys(function.arg_names, "i32") | {"gain": "fp32"} | dict.fromkeys(MAPS, f"*{element}")
    signature = {name: "constexpr" if name in constants else kinds[name] for name in function.arg_names}
    source = ASTSource(function, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared < 48 * 1024
