"""`PeftType.MDFT`.

`peft.PeftType` is a closed enum and PEFT offers no registration to other packages (huggingface/peft#2273), while all
of its loaders look methods up by a true member of it. So the member is added by hand; nothing else of PEFT is changed.
"""

from peft import PeftType


def mdft_peft_type() -> PeftType:
    """The `MDFT` member of `PeftType`, added the first time."""
    if "MDFT" not in PeftType._member_map_:
        member = str.__new__(PeftType, "MDFT")
        member._name_ = "MDFT"
        member._value_ = "MDFT"
        member.__objclass__ = PeftType
        member._sort_order_ = len(PeftType._member_names_)
        PeftType._member_names_.append("MDFT")
        PeftType._member_map_["MDFT"] = member
        PeftType._value2member_map_["MDFT"] = member
        type.__setattr__(PeftType, "MDFT", member)
    return PeftType._member_map_["MDFT"]
