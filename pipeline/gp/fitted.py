"""What a fit keeps of its network: enough to refuse one that has changed since."""

from typing import Any

from pipeline.gp.linearization import Linearization
from pipeline.jacobian.tensor_version import Version
from pipeline.types import InputError


class Fitted:
    """A process or classifier that holds as long as its network's weights stay as they are."""

    linearization: Linearization
    _version: tuple[Version, ...] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_version", self.linearization.version)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has tensors of its own, which are as unchanged as these.
        unchanged = self.linearization.version == self._version
        return {**self.__dict__, "_unchanged": unchanged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        unchanged = state.pop("_unchanged")
        self.__dict__.update(state)
        self.__dict__["_version"] = self.linearization.version if unchanged else None

    def _refuse_changed_network(self) -> None:
        if self.linearization.version != self._version:
            raise InputError(
                "the network's weights changed after the fit. Fit again, or linearize a copy of "
                "the network."
            )
