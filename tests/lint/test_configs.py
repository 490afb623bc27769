"""What a tree tells of a case that is not installed: configurations, base values, and the keys that trainers read."""

from __future__ import annotations

from pathlib import Path

import pytest
from chipperf.errors import ConfigError
from chipperf.lint.configs import NOT_EVALUATED, find_benchmark, read_configs
from reports import HEADERS, good, nvidia, put, put_benchmark, run

CONFIG_NAME = "config_A100x1x8.py"
BASE = "train_batch_size: int = 16\nlr: float = 0.1\nmax_epoch: int = 90\ntarget_acc1: float = 70.0\n"


def report(*rows, metric="acc", **general):
    """Return a report of NVIDIA's A100 on the case zeta, which is not installed."""
    general = {"模型": "zeta", "训练结果": (f"{metric},见“性能指标”", ""), **general}
    return nvidia(*rows, general=general, header=(*HEADERS[:7], metric, "mem"))


def messages(tmp_path, rule, text, configs, base=None, **sources):
    """Return the findings of a rule on a report with configurations, and why the rule was not checked."""
    path = put(tmp_path, text, case="zeta-pytorch", configs=configs)
    if base is not None or sources:
        put_benchmark(tmp_path, "zeta", base, **sources)
    result = run(path, select=rule)
    return [each.message for each in result.findings], [each.reason for each in result.unchecked]


def values(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
    (config,) = read_configs(tmp_path).configs
    return {key: assigned.value for key, assigned in config.values.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"config_A100x1x8": "a = 2 * 3\na += 1\nb = -a"}, {"a": 7, "b": -7}, id="arithmetic"),
        pytest.param({"config_A100x1x8": "if x:\n  a = 1"}, {"a": NOT_EVALUATED}, id="perhaps assigned"),
        pytest.param({"config_A100x1x8": "a = 10\n" + "a *= a\n" * 60}, {"a": NOT_EVALUATED}, id="endless digits"),
        pytest.param({"config_A100x1x8": r"a = '\d'"}, {"a": r"\d"}, id="an escape that Python warns of"),
        pytest.param({"config_A100x1x8": "import os\na = os.getenv('A')"}, {"a": NOT_EVALUATED}, id="call"),
        pytest.param(
            {
                "config_common": "a = 1\nb = 1\n_c = 1",
                "config_family_common": "from config_common import *\nb = 2",
                "config_A100x1x8": "from config_family_common import *\nc = a + b",
            },
            {"a": 1, "b": 2, "c": 3},
            id="imported from what is imported",
        ),
        pytest.param(
            {"config_common": "a = 1\nb = 1", "config_A100x1x8": "from config_common import a as c"},
            {"c": 1},
            id="one name imported",
        ),
        pytest.param({"config_common": "a = 1", "config_A100x1x8": "b = 2"}, {"b": 2}, id="not imported"),
        pytest.param(
            {
                "config_common": "from config_A100x1x8 import *\na = 1",
                "config_A100x1x8": "from config_common import *",
            },
            {"a": 1},
            id="imported in a circle",
        ),
        pytest.param({"config_A100x1x8": "from config_common import *\na = 1"}, {"a": 1}, id="imported from nowhere"),
    ],
)
def test_values_of_a_configuration(tmp_path, files, expected):
    assert values(tmp_path, **files) == expected


@pytest.mark.parametrize(
    ("card", "file", "found"),
    [
        ("A100", "config_A100x1x8.py", True),
        ("MXC500", "config_C500x1x8.py", True),
        ("A100", "config_TP2PP1SH2SP4A10040Gx1x8.py", True),
        ("Atlas 800T A2", "config_Atlas800TA2x1x8.py", True),
        ("", "config_A100x1x8.py", True),
        ("A800", "config_A100x1x8.py", False),
        ("R300p", "config_R300x1x8.py", False),
        ("9100", "config_100x1x8.py", False),
        ("A100", "config_A100x2x8.py", False),
    ],
)
def test_a_configuration_belongs_to_a_card_and_a_topology(tmp_path, card, file, found):
    (tmp_path / file).write_text("lr = 1\n")

    assert bool(read_configs(tmp_path).of_topology("1x8", card)) is found


def test_benchmark_is_found_whatever_the_case_of_its_letters(tmp_path):
    put_benchmark(tmp_path, "WaveGlow")

    found = find_benchmark(tmp_path / "training" / "acme" / "Waveglow-pytorch")

    assert found == tmp_path / "training" / "benchmarks" / "WaveGlow" / "pytorch"
    assert find_benchmark(tmp_path / "training" / "acme" / "WaveGlow-paddle") is None


@pytest.mark.parametrize(
    ("config", "row", "expected"),
    [
        pytest.param("train_batch_size = 32", {"fix_hp": "bs=64"}, ["bs=32 (base 16)"], id="other than stated"),
        pytest.param("train_batch_size = 64", {"fix_hp": "/"}, ["bs=64 (base 16)"], id="nothing stated"),
        pytest.param("learning_rate = 0.4", {"fix_hp": "lr=0.4"}, ["lr=0.1 of the base configuration"], id="not read"),
        pytest.param("batchsize = 2", {"fix_hp": "/"}, [], id="another case's name for it"),
        pytest.param("gradient_accumulation_steps = 4", {"fix_hp": "GAS=2"}, ["steps=4"], id="accumulation"),
        pytest.param("train_batch_size = 64", {"fix_hp": "\\\\"}, ["bs=64 (base 16)"], id="another mark for no change"),
        pytest.param("train_batch_size = 64", {"fix_hp": "-"}, [], id="not stated"),
        pytest.param(
            "gradient_accumulation_steps = 4", {"fix_hp": "bs=16, accumulate=256 (2M tokens)"}, ["steps=4"], id="note"
        ),
        pytest.param(
            "gradient_accumulation_steps = 4", {"fix_hp": "GAS=2(GBS=32=64K tokens)"}, ["steps=4"], id="no gap"
        ),
        pytest.param("train_batch_size = 64\nlr = 0.4", {"fix_hp": "bs=64,lr=0.4"}, [], id="as stated"),
        pytest.param("train_batch_size = None", {"fix_hp": "/"}, [], id="none means not set"),
    ],
)
def test_fix_hp_against_the_base_configuration(tmp_path, config, row, expected):
    found, _ = messages(tmp_path, "L07", report(good(**row)), {CONFIG_NAME: config}, BASE)

    assert len(found) == len(expected)
    assert all(text in message for text, message in zip(expected, found, strict=True))


def test_fix_hp_is_compared_with_the_configuration_of_its_own_card(tmp_path):
    configs = {CONFIG_NAME: "train_batch_size = 64", "config_H800x1x8.py": "train_batch_size = 16"}

    found, _ = messages(tmp_path, "L07", report(good(label="H800单机8卡（1x8）", fix_hp="bs=64")), configs, BASE)

    assert len(found) == 1
    assert "config_H800x1x8.py has bs=16" in found[0]


@pytest.mark.parametrize(
    ("settings", "config", "expected"),
    [
        ("flash_attention=False, recompute=True", "use_flash_attention = 1\nrecompute = True", "use_flash_attention=1"),
        ('sharding="stage3", sharding_degree=8', 'sharding = "stage2"', "sharding=stage2"),
        ("sharding_degree=8", "sharding_parallel_degree = 4", "sharding_parallel_degree=4"),
        ("tensor_parallel_degree=1", "tensor_parallel = 2", "tensor_parallel=2"),
        ('flash_attention=True, sharding="stage2"', 'use_flash_attention = 1\nsharding = "stage2"', ""),
        ("recompute=True, level=2", "seed = 1", ""),
    ],
)
def test_settings_beside_fix_hp(tmp_path, settings, config, expected):
    text = nvidia(
        (*good()[:3], settings, *good()[4:]), general={"模型": "zeta"}, header=(*HEADERS[:3], "parallel", *HEADERS[4:])
    )

    found, _ = messages(tmp_path, "L07", text, {CONFIG_NAME: config}, BASE)

    assert found == [f"{settings!r}, but config_A100x1x8.py has {expected}"] * bool(expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('sharding = "stage3"', ["config_TP2PP1SH2A100x1x8.py has sharding=stage3, unlike its name"]),
        ("tensor_parallel_degree = 1", ["config_TP2PP1SH2A100x1x8.py has tensor_parallel_degree=1, unlike its name"]),
        ('sharding = "stage2"\ntensor_parallel_degree = 2\npipeline_parallel_degree = 1', []),
    ],
)
def test_a_configuration_is_what_it_is_called(tmp_path, config, expected):
    row, name = good(), "config_TP2PP1SH2A100x1x8"

    found, _ = messages(tmp_path, "L07", named_table((row[0], name, *row[1:])), {f"{name}.py": config})

    assert found == expected


@pytest.mark.parametrize(
    ("parallel", "fix_hp", "config", "expected"),
    [
        (
            "TP4PP1DP2",
            "GAS=128(GBS=1024=4M tokens)",
            "batchsize = 1",
            ["'GBS=1024', but LBS x GAS x DP is 1 x 128 x 2 = 256"],
        ),
        ("TP1PP1DP8", "GAS=128(GBS=1024=4M tokens)", "batchsize = 1", []),
        ("TP2PP2", "LBS=4,GAS=8,gbs=32", "", ["'gbs=32', but LBS x GAS x DP is 4 x 8 x 2 = 64"]),
        ("TP2PP2", "LBS=4,gbs=32", "", []),
        ("TP2PP2", "LBS=4,GAS=8,gbs=2M", "", []),
        pytest.param("TP2PP2", f"LBS=4,GAS=8,gbs={'9' * 5000}", "", [], id="endless digits"),
    ],
)
def test_global_batch_is_the_product_of_its_factors(tmp_path, parallel, fix_hp, config, expected):
    header = ("配置", "precision", "parallel", "fix_hp", "token/p/s", "loss", "mem")
    row = ("A100单机8卡（1x8）", "fp32", parallel, fix_hp, "3448", "4.7", "19.3/40.0")

    found, _ = messages(tmp_path, "L07", nvidia(row, header=header, general={"模型": "zeta"}), {CONFIG_NAME: config})

    assert [message for message in found if "DP" in message] == expected


@pytest.mark.parametrize(("parallel", "found"), [("TP2PP4DP1", []), ("TP4PP2DP1", ["TP4PP2DP1"])])
def test_parallel_is_that_of_the_configuration(tmp_path, parallel, found):
    header = (*HEADERS[:3], "parallel", *HEADERS[4:])
    rows = [(*good()[:3], each, *good()[4:]) for each in (parallel, "TP8PP1DP1")]
    text = nvidia(*rows, general={"模型": "zeta"}, header=header)

    problems, _ = messages(tmp_path, "L07", text, {CONFIG_NAME: "tensor_parallel = 2\npipeline_parallel = 4"}, BASE)

    assert problems == [f"{each!r}, but config_A100x1x8.py has TP=2, PP=4" for each in (*found, "TP8PP1DP1")]


@pytest.mark.parametrize(
    ("precision", "base", "config", "expected"),
    [
        ("amp", "amp: bool = True", "", ""),
        ("amp", "amp_enable = True", "", ""),
        ("amp", "amp: bool = True", "amp = False", "no configuration for 1x8 sets amp"),
        ("amp", "amp: bool = False", "from config_family_common import *", ""),
        ("fp32", "amp: bool = False", "amp = True", "fp32, but the configuration for 1x8 sets amp"),
        ("fp32", "fp16: bool = True", "", "sets fp16, and the configuration for 1x8 does not unset it"),
        ("fp32", "fp16: bool = True", "fp16 = False", ""),
    ],
)
def test_precision_in_the_base_and_in_imported_configurations(tmp_path, precision, base, config, expected):
    configs = {CONFIG_NAME: config, "config_family_common.py": "fp16 = True"}
    trainer = "if config.amp or config.amp_enable or config.fp16: ..."

    found, unchecked = messages(tmp_path, "L08", report(good(precision=precision)), configs, base, trainer=trainer)

    assert len(found) == bool(expected)
    assert all(expected in message for message in found)
    assert not unchecked


def test_precision_of_a_base_without_its_trainers(tmp_path):
    found, unchecked = messages(tmp_path, "L08", report(good(precision="amp")), {CONFIG_NAME: ""}, "amp = True")

    assert (found, unchecked) == ([], [])


def test_a_switch_that_no_trainer_reads_says_nothing_of_the_precision(tmp_path):
    found, _ = messages(tmp_path, "L08", report(), {CONFIG_NAME: ""}, "fp16 = True", trainer="config.amp")

    assert found == []


def test_precision_without_a_switch_is_not_checked(tmp_path):
    found, unchecked = messages(tmp_path, "L08", report(good(precision="bf16")), {CONFIG_NAME: "lr = 1"})

    assert found == []
    assert unchecked == ["neither the configurations nor a base configuration have a switch for bf16"]


def test_no_other_cards_configuration_is_that_of_a_row(tmp_path):
    found, _ = messages(tmp_path, "L08", report(good(label="A800单机8卡（1x8）")), {CONFIG_NAME: ""})

    assert found == ["there is no configuration for A800 1x8; there are config_A100x1x8.py"]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        pytest.param("if x:\n  max_epoch = 2", 2, id="if"),
        pytest.param("try:\n  max_epoch = 2\nfinally:\n  pass", 2, id="try"),
        pytest.param("for max_epoch in (2,): pass", 1, id="for"),
        pytest.param("lr = (max_epoch := 2)", 1, id="walrus"),
        pytest.param("max_epoch, *lr = 2, 1", 1, id="starred"),
        pytest.param("max_epoch = secret.x", 1, id="attribute"),
        pytest.param("def f():\n  global max_epoch\n  max_epoch = 2", 1, id="function"),
        pytest.param("lr = 1\nglobals()['max_epoch'] = 2", 2, id="globals"),
        pytest.param("exec('max_epoch = 2')", 1, id="exec"),
        pytest.param("setattr(module, 'max_epoch', 2)", 1, id="setattr"),
        pytest.param("from elsewhere import *", 1, id="module that is not there"),
    ],
)
@pytest.mark.parametrize("rule", ["L09", "L10"])
def test_line_of_a_configuration_that_cannot_be_read_is_named(tmp_path, rule, config, line):
    wanted = config.replace("max_epoch", "target_acc1") if rule == "L10" else config

    found, unchecked = messages(tmp_path, rule, report(), {CONFIG_NAME: wanted}, BASE)

    assert (found, unchecked) == ([], [f"{CONFIG_NAME}:{line} cannot be read"])


def test_several_names_take_their_values_from_several_sources(tmp_path):
    assert values(tmp_path, config_A100x1x8="a, (b, c) = 1, (2, 3)") == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({CONFIG_NAME: "os.environ['ACME_TF32'] = '1'"}, f"{CONFIG_NAME}:1 sets ACME_TF32=1", id="environ"),
        pytest.param(
            {CONFIG_NAME: "import more", "more.py": "torch.backends.cuda.matmul.allow_tf32 = True"},
            "more.py:1 sets allow_tf32=True",
            id="torch",
        ),
        pytest.param(
            {CONFIG_NAME: "\ntorch.set_float32_matmul_precision('high')"},
            f"{CONFIG_NAME}:2 sets set_float32_matmul_precision=high",
            id="precision of products",
        ),
        pytest.param(
            {CONFIG_NAME: "", "environment_variables.sh": "source ./more.sh\n", "more.sh": "\nexport ACME_TF32=1\n"},
            "more.sh:2 sets ACME_TF32=1",
            id="sourced",
        ),
        pytest.param({CONFIG_NAME: "torch.backends.cuda.matmul.allow_tf32 = False"}, None, id="off"),
    ],
)
def test_reduced_arithmetic_is_found_wherever_it_is_set(tmp_path, files, expected):
    found, unchecked = messages(tmp_path, "L14", report(), files, BASE)

    assert (found, unchecked) == ([f"fp32, but {expected}"] if expected else [], [])


@pytest.mark.parametrize("text", ["X=ACME_TF32\nexport $X=1", 'X=1\nexport "$Y"=1', "X=1\nsource /opt/acme.sh"])
def test_variables_that_cannot_be_read_are_named(tmp_path, text):
    files = {CONFIG_NAME: "", "environment_variables.sh": text}

    assert messages(tmp_path, "L14", report(), files, BASE) == ([], ["environment_variables.sh:2 cannot be read"])


@pytest.mark.parametrize(
    ("changes", "config", "expected"),
    [
        ("无", "max_epoch = 2", ["config_A100x1x8.py stops after 2 of 90 epochs, and no change is declared"]),
        ("使用apex库", "max_epoch = 2", ["config_A100x1x8.py stops after 2 of 90 epochs, and no change is declared"]),
        ("只训练 2 个 epoch", "max_epoch = 2", []),
        ("无", "epochs = 2", []),
        ("无", "max_samples_termination = 30", ["config_A100x1x8.py stops after 30 of 900 samples, and no change is"]),
        ("无", "max_samples_termination = 300", []),
    ],
)
def test_shortened_run_of_a_case_that_is_not_installed(tmp_path, changes, config, expected):
    base = f"{BASE}max_samples_termination = 900\n"

    found, _ = messages(tmp_path, "L09", report(额外修改项=changes), {CONFIG_NAME: config}, base)

    assert len(found) == len(expected)
    assert all(message.startswith(text) for text, message in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("base", "config", "expected"),
    [
        ("target_ppl = 10000", "target_ppl = 0.6", []),
        ("target_ppl = 50", "target_ppl = 60", ["sets target_ppl to 60, the base configuration asks for 50"]),
        ("target_val_loss = 3.5", "target_val_loss = 1.0", []),
        ("target_acc1 = 76.0", "target_acc1 = 0.75", ["to 0.75, the base configuration asks for 76"]),
        ("target_acc1 = 0.76", "target_acc1 = 76.0", []),
        ("target_acc1 = 0.76", "target_other = 0.1", []),
    ],
)
def test_target_is_lowered_in_the_direction_of_its_metric(tmp_path, base, config, expected):
    found, _ = messages(tmp_path, "L10", report(), {CONFIG_NAME: config}, base)

    assert len(found) == len(expected)
    assert all(text in message for text, message in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("metric", "result", "base", "expected"),
    [
        ("acc", "61.0%", "target_acc1 = 70.0", ["61.0% is below the target 70 of the base configuration"]),
        ("acc", "70.0%", "target_acc1 = 70.0", []),
        ("final_acc1", "81.03", "target_acc1 = 0.82", ["81.03 is below the target 0.82"]),
        ("ppl", "22.1", "target_ppl = 22.5", []),
        ("ppl", "23.1", "target_ppl = 22.5", ["23.1 is above the target 22.5"]),
        ("acc", "49.1%", "target_ppl = 22.5", []),
        ("mAP", "0.3", "target_map_bbox = 0.38\ntarget_map_segm = 0.34", []),
    ],
)
def test_result_against_the_target_of_the_base_configuration(tmp_path, metric, result, base, expected):
    text = report(good(acc=result), metric=metric)

    found, unchecked = messages(tmp_path, "L12", text, {CONFIG_NAME: ""}, base)

    assert len(found) == len(expected)
    assert all(text in message for text, message in zip(expected, found, strict=True))
    assert bool(unchecked) is (metric == "mAP" or result == "49.1%")


def test_implied_epochs_of_a_case_on_the_dataset_of_an_installed_one(tmp_path):
    base = BASE.replace("90", "50")

    found, _ = messages(tmp_path, "L11", report(), {CONFIG_NAME: ""}, base)

    assert found == ["e2e_time and p_whole imply 100.0 epochs, the base configuration has 50"]


@pytest.mark.parametrize(
    ("source", "found", "unchecked"),
    [
        pytest.param("getattr(module, 'seqlength')", 0, 0, id="read by its name"),
        pytest.param("config.seqlength", 0, 0, id="read as an attribute"),
        pytest.param("config.batchsize", 1, 0, id="not read"),
        pytest.param("parser.parse_dict(config)", 0, 1, id="handed to a library"),
        pytest.param("", 0, 1, id="no source"),
    ],
)
def test_keys_that_the_sources_of_a_case_without_base_read(tmp_path, source, found, unchecked):
    problems, reasons = messages(tmp_path, "L29", report(), {CONFIG_NAME: "seqlength = 2048"}, run_pretraining=source)

    assert (len(problems), len(reasons)) == (found, unchecked)


@pytest.mark.parametrize(
    ("key", "read", "hint"),
    [("train_batchsize", "train_batch_size", " (did you mean 'train_batch_size'?)"), ("ddp_type", "dtype", "")],
)
def test_only_a_near_spelling_is_a_hint(tmp_path, key, read, hint):
    found, _ = messages(tmp_path, "L29", report(), {CONFIG_NAME: f"{key} = 1"}, BASE, trainer=f"config.{read}")

    assert found == [f"config_A100x1x8.py:1 sets {key!r}, which nothing reads{hint}"]


@pytest.mark.parametrize(("target", "found"), [("70.0", 0), ("71.0", 1)])
def test_target_of_a_configuration_that_is_not_that_of_its_tree(tmp_path, target, found):
    problems, _ = messages(tmp_path, "L27", report(), {CONFIG_NAME: f"target_acc1 = {target}"}, BASE)

    assert (
        problems
        == ["config_A100x1x8.py:1 sets target_acc1 to 71 without a version; the base configuration has 70"] * found
    )


def test_key_that_several_configurations_set_is_one_finding(tmp_path):
    configs = {CONFIG_NAME: "odd_key = 1", "config_A100x2x8.py": "odd_key = 1"}

    found, _ = messages(tmp_path, "L29", report(), configs, BASE)

    assert found == ["config_A100x1x8.py:1 (and 1 more) sets 'odd_key', which nothing reads"]


def test_configuration_that_names_another_vendor(tmp_path):
    found, _ = messages(tmp_path, "L20", report(), {CONFIG_NAME: 'vendor = "metax"'})

    assert found == ["config_A100x1x8.py sets vendor to 'metax'"]


def test_text_that_sends_the_reader_to_another_vendors_directory(tmp_path):
    text = nvidia(after="`training/metax/zeta-pytorch/config/requirements.txt`")

    found, _ = messages(tmp_path, "L20", text, {})

    assert found == ["'training/metax/zeta-pytorch/config/requirements.txt' is a directory of metax"]


@pytest.mark.parametrize(
    ("keys", "found", "unchecked"),
    [
        ("zeta:pytorch_2.0:C500:1:8:1", 0, 1),
        ("zeta:pytorch:A100:1:8:1", 0, 1),
        ("zeta:paddle_2.5:A100:1:8:1", 0, 1),
        ("zeta:pytorch_1.13:A100:1:8:1", 0, 0),
        ("zeta:pytorch_2.0:A100:1:8:1", 1, 0),
    ],
)
def test_only_keys_for_the_vendors_cards_and_the_framework_tell_a_version(tmp_path, keys, found, unchecked):
    test_conf = tmp_path / "training" / "run_benchmarks" / "config" / "test_conf.py"
    test_conf.parent.mkdir(parents=True)
    test_conf.write_text(f'    # "{keys}": "/data",\n')

    problems, reasons = messages(tmp_path, "L19", report(), {})

    assert (len(problems), len(reasons)) == (found, unchecked)


def test_precision_with_a_level_is_in_the_legend(tmp_path):
    found, _ = messages(tmp_path, "L14", report(good(precision='fp16, level="O2"')), {})

    assert found == []


def test_precision_of_the_row_and_of_the_general_table(tmp_path):
    found, _ = messages(tmp_path, "L14", report(good(precision="bf16"), 数据精度="amp"), {})

    assert found == ["'bf16', 'amp' in the general table"]


def test_precision_that_a_configuration_names(tmp_path):
    found, _ = messages(tmp_path, "L08", report(good(precision="fp16")), {CONFIG_NAME: "precision = 'bf16'"})

    assert found == ["no configuration for 1x8 sets fp16: config_A100x1x8.py"]


@pytest.mark.parametrize(("value", "found"), [(1, 1), (8, 0), pytest.param("9" * 5000, 0, id="endless digits")])
def test_value_that_the_text_says_a_configuration_has(tmp_path, value, found):
    text = nvidia(general={"模型": "zeta"}, after=f"1. local_batchsize，为config_A100x1x8.py中所写，默认为**{value}**")

    problems, _ = messages(tmp_path, "L07", text, {CONFIG_NAME: "batchsize = 8"})

    assert problems == ["local_batchsize 1, but config_A100x1x8.py has 8"] * found


def named_table(*rows):
    return nvidia(*rows, general={"模型": "zeta"}, header=(HEADERS[0], "config", *HEADERS[1:]))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("config_TP2PP1A10080Gx1x8", []),
        ("config_TP1PP1A10080Gx1x8.py", ["config_TP1PP1A10080Gx1x8.py has bs=2"]),
    ],
)
def test_a_row_that_names_its_configuration_is_compared_with_that_one(tmp_path, named, expected):
    row = good(fix_hp="per_device_bs=4")
    configs = {
        "config_TP1PP1A10080Gx1x8.py": "per_device_train_batch_size = 2",
        "config_TP2PP1A10080Gx1x8.py": "per_device_train_batch_size = 4",
    }

    found, _ = messages(tmp_path, "L07", named_table((row[0], named, *row[1:])), configs)

    assert len(found) == len(expected)
    assert all(text in message for text, message in zip(expected, found, strict=True))


def test_a_configuration_that_a_row_names_and_that_is_not_there(tmp_path):
    row = good()

    found, _ = messages(tmp_path, "L08", named_table((row[0], "config_A100x1x2", *row[1:])), {CONFIG_NAME: ""})

    assert found == ["there is no configuration config_A100x1x2; there are config_A100x1x8.py"]


@pytest.mark.parametrize(("section", "found"), [("Zeta-7B", 1), ("Zeta-13B", 0)])
def test_rows_on_another_size_of_the_model_have_their_configurations_elsewhere(tmp_path, section, found):
    rows = [(section, *["-------"] * (len(HEADERS) - 1)), good(fix_hp="bs=4")]
    path = put(tmp_path, nvidia(*rows), case="zeta_7B-pytorch", configs={CONFIG_NAME: "train_batch_size = 2"})

    assert len(run(path, select="L07").findings) == found


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ({"chipperf.toml": "hyperparameters = 3"}, ["chipperf.toml cannot be loaded: ValueError: hyperparameters is"]),
        ({"chipperf.toml": '[hyperparameters]\nvendor = ["x"]'}, []),
        ({CONFIG_NAME: f"train_batch_size = 1{'0' * 400}"}, []),
    ],
)
def test_no_configuration_ends_the_lint(tmp_path, configs, expected):
    found = run(put(tmp_path, report(good()), case="zeta-pytorch", configs=configs)).findings

    loaded = [each.message for each in found if each.rule == "L08" and "cannot be loaded" in each.message]
    assert [message[: len(begin)] for message, begin in zip(loaded, expected, strict=True)] == expected


def test_directory_of_configurations_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(ConfigError, match="cannot read .*: Permission denied"):
        read_configs(tmp_path)
