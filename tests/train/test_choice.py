"""What computes a run: the quickest in trial steps, of what options and hardware allow."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from artifacts import colour_photos
from networks import tiny
from processes import Processes, together
from smallcnn.errors import CompileError, DataError
from smallcnn.ir.builder import Builder
from smallcnn.model.store import load
from smallcnn.module import to_module
from smallcnn.reference.initial import initial_weights
from smallcnn.train import choice, trial
from smallcnn.train.choice import Extent, choose
from smallcnn.train.compute import KERNELS, TORCH, Computation, possible
from smallcnn.train.distributed import joined
from smallcnn.train.fast import native
from smallcnn.train.ranks import Ranks
from smallcnn.train.recipe import Recipe
from smallcnn.train.run import train

BFLOAT16 = Computation("torch", bfloat16=True)
CPU, GPU = torch.device("cpu"), torch.device("cuda")
LONG = Extent(images=1_000_000, batch=64)
SHORT = Extent(images=500, batch=64)


@pytest.fixture(autouse=True)
def _whatever_the_tests_run_in(monkeypatch):
    monkeypatch.setattr(choice, "possible", possible)  # the option --precision replaces it


@pytest.fixture
def processor(monkeypatch):
    """Makes this a processor that computes in bfloat16 or not."""

    def computes(bfloat16):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bfloat16})
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)

    computes(True)
    return computes


@pytest.fixture
def speeds(monkeypatch):
    """Sets images per second by computation; returns the trials made: (computations, images per step)."""
    made = []

    def are(rates):
        def measured(computations, module, size, batch, ranks):
            made.append(([*computations], batch))
            return [rates[one] for one in computations]

        monkeypatch.setattr(trial, "rates", measured)
        return made

    return are


@pytest.fixture
def compiled(monkeypatch):
    """Sets whether the cache has the kernels; returns what was compiled."""

    def are(there):
        made = []
        monkeypatch.setattr(native, "is_compiled", lambda: there)
        monkeypatch.setattr("smallcnn.train.fast.accelerate", lambda module: made.append(module) or module)
        return made

    are(True)
    return are


def chosen(way="auto", precision="auto", extent=LONG, graph=None):
    found = choose(way, precision, to_module(graph or tiny()), (8, 8, 3), CPU, extent, Ranks())
    return found.computation, found.reason


@pytest.mark.parametrize(
    ("way", "precision", "device", "bfloat16", "allowed"),
    [
        ("auto", "auto", CPU, True, [KERNELS, TORCH, BFLOAT16]),
        ("auto", "auto", CPU, False, [KERNELS, TORCH]),
        ("auto", "float32", CPU, True, [KERNELS, TORCH]),
        ("auto", "bfloat16", CPU, False, [BFLOAT16]),
        ("torch", "auto", CPU, True, [TORCH, BFLOAT16]),
        ("torch", "auto", CPU, False, [TORCH]),
        ("torch", "bfloat16", CPU, True, [BFLOAT16]),
        ("kernels", "auto", CPU, True, [KERNELS]),
        ("kernels", "float32", CPU, True, [KERNELS]),
        ("compile", "auto", CPU, True, [Computation("compile")]),
        ("compile", "bfloat16", CPU, True, [Computation("compile", bfloat16=True)]),
        ("auto", "auto", GPU, True, [BFLOAT16]),
        ("auto", "auto", GPU, False, [TORCH]),
        ("torch", "float32", GPU, True, [TORCH]),
        ("compile", "auto", GPU, True, [Computation("compile", bfloat16=True)]),
    ],
)
def test_options_and_hardware_say_what_is_possible(processor, way, precision, device, bfloat16, allowed):
    processor(bfloat16)
    assert possible(way, precision, device)[0] == allowed


@pytest.mark.parametrize(("precision", "device", "what"), [("bfloat16", CPU, "bfloat16"), ("auto", GPU, "cuda")])
def test_the_kernels_are_for_float32_on_the_cpu(precision, device, what):
    with pytest.raises(DataError, match=rf"^--compute kernels is for float32 on the CPU, not {what}; drop one of"):
        possible("kernels", precision, device)


@pytest.mark.parametrize("quickest", [KERNELS, TORCH, BFLOAT16], ids=str)
def test_the_quickest_wins_and_the_line_has_every_rate(processor, speeds, compiled, quickest):
    speeds({KERNELS: 70.0, TORCH: 50.0, BFLOAT16: 60.0} | {quickest: 139.4})
    computation, reason = chosen()
    assert computation == quickest
    assert reason.startswith(f"images/s in trial steps: 139 with {quickest}, ")
    others = {KERNELS: "70 with kernels in float32", TORCH: "50 with torch in float32", BFLOAT16: "60 with torch in bf"}
    assert all(text in reason for one, text in others.items() if one != quickest)


def test_options_restrict_what_is_timed(processor, speeds, compiled):
    made = speeds({KERNELS: 70.0, TORCH: 50.0, BFLOAT16: 60.0})
    assert chosen(way="torch")[0] == BFLOAT16
    assert chosen(precision="float32")[0] == KERNELS
    assert [one for one, _ in made] == [[TORCH, BFLOAT16], [KERNELS, TORCH]]
    assert chosen(way="torch", precision="float32") == (TORCH, "chosen with --compute")
    assert chosen(precision="bfloat16") == (BFLOAT16, "our own kernels compute in float32")
    assert len(made) == 2, "where there is no choice, nothing is timed"


def test_a_processor_without_bfloat16_says_so(processor, speeds, compiled):
    processor(False)
    speeds({KERNELS: 70.0, TORCH: 50.0})
    assert chosen()[1].endswith("70 with kernels in float32, 50 with torch in float32; no bfloat16 in this processor")


def test_trial_steps_take_half_a_batch_and_a_twentieth_of_the_run(processor, speeds, compiled):
    made = speeds({KERNELS: 70.0, TORCH: 50.0, BFLOAT16: 60.0})
    chosen(extent=Extent(images=1_000_000, batch=128))
    chosen(extent=Extent(images=4_000, batch=128))
    chosen(extent=Extent(images=1_000_000, batch=3))
    assert [batch for _, batch in made] == [64, 4_000 // 20 // (3 * 4), 2]


@pytest.mark.parametrize(("there", "takes"), [(True, KERNELS), (False, TORCH)])
def test_a_short_run_is_not_measured_and_compiles_nothing(processor, speeds, compiled, there, takes):
    made, compilations = speeds({}), compiled(there)
    computation, reason = chosen(extent=SHORT)
    assert computation == takes
    assert "too short a run to measure" in reason
    assert not made
    assert there or not compilations


@pytest.mark.parametrize(
    ("extent", "compiles"),
    [
        (Extent(images=2_990, batch=64), False),  # 59.8 seconds with torch
        (Extent(images=3_010, batch=64), True),
        (Extent(images=1_000_000, batch=64, minutes=0.99), False),
        (Extent(images=1_000_000, batch=64, minutes=1.01), True),
    ],
)
def test_kernels_are_compiled_only_for_a_run_of_a_minute(processor, speeds, compiled, extent, compiles):
    speeds({KERNELS: 70.0, TORCH: 50.0, BFLOAT16: 60.0})
    compilations = compiled(False)
    computation, reason = chosen(extent=extent)
    assert (computation == KERNELS) == compiles == bool(compilations)
    assert compiles or "not our own kernels: they are compiled for runs of a minute or longer" in reason


def test_minutes_shorten_the_run(processor, speeds, compiled):
    made = speeds({KERNELS: 70.0, TORCH: 50.0, BFLOAT16: 60.0})
    chosen(extent=Extent(images=1_000_000, batch=64, minutes=1))
    assert made[-1][1] == 60 * 50 // 20 // (3 * 4), "a twentieth of 3,000 images, in 12 steps"


def test_kernels_that_do_not_compile_are_left_out_with_the_reason(processor, speeds, compiled, monkeypatch):
    speeds({TORCH: 50.0, BFLOAT16: 40.0})

    def refuse(module):
        raise CompileError("needs a C compiler")

    monkeypatch.setattr("smallcnn.train.fast.accelerate", refuse)
    computation, reason = chosen()
    assert computation == TORCH
    assert reason.endswith("40 with torch in bfloat16; not our own kernels: needs a C compiler")
    with pytest.raises(CompileError):
        KERNELS.network(to_module(tiny()))


def test_a_network_of_several_outputs_may_take_the_kernels(processor, speeds, compiled):
    g = Builder(input=(8, 8, 3))
    x = g.global_pool(g.conv_bn(g.input, 4, kernel=3, name="stem"), name="pool")
    ends = {name: g.dense(x, 3, name=name) for name in ("one", "two")}
    speeds({TORCH: 50.0, BFLOAT16: 40.0, KERNELS: 60.0})
    assert chosen(graph=g.graph(ends, features=x, name="twins"))[0] == KERNELS


class Clocked(Computation):
    """A computation whose steps take `seconds` of a clock that stands still otherwise."""

    now, log = 0.0, []

    def __init__(self, name, seconds):
        super().__init__("torch")
        vars(self).update(name=name, seconds=iter(seconds))

    def network(self, module):
        def network(images):
            Clocked.log.append((self.name, len(images)))
            Clocked.now += next(self.seconds)
            return module(images)

        return network


def test_rates_are_of_the_fastest_timed_step_and_steps_alternate(monkeypatch):
    monkeypatch.setattr(trial.time, "perf_counter", lambda: Clocked.now)
    Clocked.log.clear()
    pair = [Clocked("a", [0.25, 4.0, 2.0, 3.0]), Clocked("b", [8.0, 8.0, 9.0, 9.0])]
    found = trial.rates(pair, to_module(tiny()), (8, 8, 3), 16, Ranks())
    assert found == [16 / 2.0, 16 / 8.0], "the first step is not timed"
    assert Clocked.log == [("a", 16), ("b", 16)] * 4


def rated(out):
    """A trial in this process, whose steps take as many seconds as there are processes before it, and one."""
    trial.time = SimpleNamespace(perf_counter=lambda: Clocked.now)
    with joined("cpu") as (ranks, _):
        clocked = Clocked("a", [5.0, 2.0 + ranks.number, 1.0 + ranks.number, 3.0])
        rates = trial.rates([clocked], to_module(tiny()), (8, 8, 3), 16, ranks)
        (out / f"rates{ranks.number}").write_text(str(rates))


def test_processes_take_steps_together_and_the_slowest_counts(tmp_path):
    together(tmp_path, 2, rated, tmp_path)
    for number in range(2):
        assert (tmp_path / f"rates{number}").read_text() == str([2 * 16 / 2.0])


def trained(data, out, compute):
    """Trains with the choice of each process's own trial: they disagree, and only the first has bfloat16."""
    number = int(os.environ["RANK"])
    torch.cpu.get_capabilities = lambda: {"avx512_bf16": number == 0}
    choice.possible, choice._FEWEST = possible, 0
    native.is_compiled = lambda: True
    speeds = ({KERNELS: 70.0, TORCH: 50.0}, {KERNELS: 20.0, TORCH: 50.0})[number]
    trial.rates = lambda computations, *_: [speeds[one] for one in computations]
    train(tiny(), data, out, recipe=Recipe(epochs=2, batch_size=8), compute=compute)


def test_processes_compute_alike_by_the_first_ones_figures(photos, tmp_path):
    said = together(tmp_path, 2, trained, photos, tmp_path / "auto", "auto")
    measured = "images/s in trial steps: 70 with kernels in float32, 50 with torch in float32"
    why = "not every process can compute with torch in bfloat16"
    assert f"computed by kernels in float32: {measured}; {why}\n" in said[0]
    together(tmp_path, 2, trained, photos, tmp_path / "kernels", "kernels")
    one, two = (load(tmp_path / name / "last.safetensors") for name in ("auto", "kernels"))
    assert all(np.array_equal(one.weights[name], two.weights[name]) for name in one.weights)


def test_several_processes_cannot_use_torch_compile(photos, tmp_path):
    processes = Processes(tmp_path, 2, trained, photos, tmp_path / "out", "compile")
    codes, said = processes.finish()
    assert codes == [2, 2]
    assert said[0] == "smallcnn: --compute compile needs a single process\n"


@pytest.mark.parametrize("computation", [KERNELS, TORCH, BFLOAT16], ids=str)
def test_a_trial_leaves_no_trace(computation):
    module = to_module(tiny())
    module.get_submodule("block.bn").eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assert trial.rates([computation], module, (8, 8, 3), 4, Ranks())[0] > 0
    assert torch.equal(torch.rand(3), wanted), "random numbers continue where they were"
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not module.get_submodule("block.bn").training


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return colour_photos(tmp_path_factory.mktemp("data") / "photos")


def test_the_run_says_what_computes_it(processor, speeds, photos, tmp_path, capsys, monkeypatch):
    speeds({TORCH: 50.0, BFLOAT16: 60.0})
    monkeypatch.setattr(choice, "_FEWEST", 0)
    measured = "images/s in trial steps: 60 with torch in bfloat16, 50 with torch in float32"
    how = {"auto": ("with bfloat16 autocast", measured), "float32": ("in float32", "chosen with --compute")}
    for precision, (words, line) in how.items():
        recipe = Recipe(epochs=1, batch_size=8, precision=precision)
        result = train(tiny(), photos, tmp_path / precision, recipe=recipe, compute="torch")
        assert f"computed by torch {words}: {line}\n" in capsys.readouterr().err
        assert load(result.last).facts["bfloat16"] == (precision == "auto")


def test_however_a_run_computes_it_ends_alike(photos, tmp_path):
    """Forced to each computation, 12 steps end with the same weights.

    In float32 a step rounds weights and statistics, which are near 1, by 2^-24 a few times, and later steps carry it
    on: measured a fifth. In bfloat16 the values of each layer are rounded by 2^-9, and their gradients; how far weights
    or statistics have come is uncertain by 2^-8 for each of both: measured two thirds of that.
    """
    recipe = Recipe(epochs=6, batch_size=8, augment="none")
    ends = {}
    for one in (TORCH, KERNELS, BFLOAT16):
        precision = "bfloat16" if one.bfloat16 else "float32"
        made = train(tiny(), photos, tmp_path / str(one), recipe=recipe, compute=one.way, precision=precision)
        ends[one] = load(made.last).weights
    start = initial_weights(tiny(), recipe.seed)
    for statistics in (True, False):
        names = [name for name in start if ("running" in name) is statistics]
        way = max(np.abs(ends[TORCH][name] - start[name]).max() for name in names)
        for one, atol in [(KERNELS, 4 * 12 * 2**-24), (BFLOAT16, 2 * 2**-8 * way)]:
            for name in names:
                said = f"{name}, {one}"
                np.testing.assert_allclose(ends[one][name], ends[TORCH][name], rtol=0, atol=atol, err_msg=said)
        assert len({ends[one]["stem.conv.weight"].tobytes() for one in ends}) == 3, "they did compute differently"
