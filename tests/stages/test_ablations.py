from pathlib import Path

import pytest

from pipeline.registry import load_config, variant_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs/ablations").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_ablation_says_its_command_and_every_row_of_it_is_a_valid_config(path, monkeypatch):
    monkeypatch.setenv("ENTK_DATA", "/data")
    config = load_config(path)
    assert config.name == f"ablation_{path.stem}"
    assert f"entk run configs/ablations/{path.name}" in path.read_text()
    assert (
        config.variants
        or config.kernel.sizes
        or config.outside_span
        or config.solver.kind == "lanczos"
    )
    for name, options in config.variants.items():
        changed = variant_config(config, options.set, name)
        assert changed.benchmark == config.benchmark
        varied = changed != variant_config(config, (), name)
        assert varied or options.probe_head or not options.set
