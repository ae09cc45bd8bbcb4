"""Models from outside the pool that give soft targets: of any architecture, for their classes are matched by name."""

from .outside import OutsideTeacher, outside_teachers


__all__ = ["OutsideTeacher", "outside_teachers"]
