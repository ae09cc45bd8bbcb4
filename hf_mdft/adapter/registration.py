"""Registration of the method with PEFT."""

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from .config import MdftConfig
from .model import MdftModel
from .peft_type import mdft_peft_type


def register() -> None:
    """Register `MDFT` with PEFT; a second call does nothing."""
    if mdft_peft_type() not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name="mdft", config_cls=MdftConfig, model_cls=MdftModel)
