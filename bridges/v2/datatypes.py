"""The data types that order, identity and result messages are made of (HL7 v2.5.1 chapter 2.A), read and written alike.

Each is frozen, empty text stands for absent, `from_field` reads one repetition, and `Seg` takes them as values. The CE, CNN
and HD of older versions are the beginnings of CWE, XCN and EI in the parts named here.
"""

from dataclasses import dataclass

from bridges.v2.message import Comp, Field, Raw, Sub


@dataclass(frozen=True, slots=True)
class HD:
    """Hierarchic designator: an assigning authority or an application."""

    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""

    @classmethod
    def from_field(cls, field: Field) -> "HD":
        return cls(field.get(1), field.get(2), field.get(3))

    @classmethod
    def from_component(cls, field: Field, number: int) -> "HD":
        """From the subcomponents of one component, as in CX-4."""
        return cls(field.get(number, 1), field.get(number, 2), field.get(number, 3))

    @property
    def oid(self) -> str:
        """The universal id where it is an OID, else empty."""
        return self.universal_id if self.universal_id_type.upper() == "ISO" else ""

    def value(self) -> Comp:
        return Comp(self.namespace, self.universal_id, self.universal_id_type)

    def sub(self) -> Sub:
        return Sub(self.namespace, self.universal_id, self.universal_id_type)


@dataclass(frozen=True, slots=True)
class EI:
    """Entity identifier, such as a placer order number. Where `raw` (in the default separators) is set, it is what is written."""

    id: str = ""
    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""
    raw: str = ""

    @classmethod
    def from_field(cls, field: Field) -> "EI":
        return cls(field.get(1), field.get(2), field.get(3), field.get(4), field.standard)

    def value(self) -> Comp | Raw:
        return Raw(self.raw) if self.raw else Comp(self.id, self.namespace, self.universal_id, self.universal_id_type)


@dataclass(frozen=True, slots=True)
class CX:
    """Extended composite id, such as a patient identifier: id, assigning authority and identifier type (table 0203)."""

    id: str = ""
    authority: HD = HD()
    type: str = ""
    facility: HD = HD()
    effective: str = ""
    expiration: str = ""

    @classmethod
    def from_field(cls, field: Field) -> "CX":
        return cls(
            field.get(1), HD.from_component(field, 4), field.get(5), HD.from_component(field, 6), field.get(7), field.get(8)
        )

    def value(self) -> Comp:
        return Comp(self.id, None, None, self.authority.sub(), self.type, self.facility.sub(), self.effective, self.expiration)


@dataclass(frozen=True, slots=True)
class FN:
    """The parts of a family name, beside the surname (FN.2 to FN.5)."""

    own_prefix: str = ""
    own_name: str = ""
    partner_prefix: str = ""
    partner_name: str = ""

    @classmethod
    def from_component(cls, field: Field, number: int) -> "FN":
        return cls(*(field.get(number, part) for part in range(2, 6)))

    def whole(self, surname: str) -> str:
        """The family name as people write it. Some send the prefix in the surname too, some leave the surname to its parts."""
        if not surname:
            return _joined(self.own_prefix, self.own_name) or _joined(self.partner_prefix, self.partner_name)
        with_prefix = _joined(self.own_prefix, surname)
        beginning = with_prefix.removesuffix(surname).lower()
        is_whole = self.own_name not in {"", surname} or surname.lower().startswith(beginning)
        return surname if is_whole else with_prefix

    def sub(self, surname: str) -> Sub:
        return Sub(surname, self.own_prefix, self.own_name, self.partner_prefix, self.partner_name)


def _joined(prefix: str, name: str) -> str:
    """`van Gogh`, `d'Arc`."""
    return (f"{prefix}{name}" if prefix.endswith(("'", "’")) else f"{prefix} {name}").strip() if name else ""


@dataclass(frozen=True, slots=True)
class XPN:
    """Extended person name. `type` is table 0200 (L legal, M maiden, ...), `representation` table 0465 (A, I, P)."""

    family: str = ""
    given: str = ""
    middle: str = ""
    suffix: str = ""
    prefix: str = ""
    degree: str = ""
    type: str = ""
    representation: str = ""
    of_family: FN = FN()

    @classmethod
    def from_field(cls, field: Field) -> "XPN":
        family, given, middle, suffix, prefix, degree, type_, representation = (field.get(number) for number in range(1, 9))
        of_family = FN.from_component(field, 1)
        return cls(of_family.whole(family), given, middle, suffix, prefix, degree, type_, representation, of_family)

    def value(self) -> Comp:
        return Comp(
            self.of_family.sub(self.family),
            self.given,
            self.middle,
            self.suffix,
            self.prefix,
            self.degree,
            self.type,
            self.representation,
        )


@dataclass(frozen=True, slots=True)
class XCN:
    """Extended composite id and name of a person, such as the ordering provider. `id_type` is table 0203."""

    id: str = ""
    family: str = ""
    given: str = ""
    middle: str = ""
    suffix: str = ""
    prefix: str = ""
    degree: str = ""
    authority: HD = HD()
    name_type: str = ""
    id_type: str = ""

    @classmethod
    def from_field(cls, field: Field) -> "XCN":
        id_, family, given, middle, suffix, prefix, degree = (field.get(number) for number in range(1, 8))
        authority, family = HD.from_component(field, 9), FN.from_component(field, 2).whole(family)
        return cls(id_, family, given, middle, suffix, prefix, degree, authority, field.get(10), field.get(13))

    @classmethod
    def from_component(cls, field: Field, number: int = 1) -> "XCN":
        """From a component that is a CNN, as in the NDL of OBR-32: `id&family&given&...`, authority from the ninth."""
        cnn = field.component(number)
        id_, family, given, middle, suffix, prefix, degree = (cnn.get(part) for part in range(1, 8))
        return cls(id_, family, given, middle, suffix, prefix, degree, HD(cnn.get(9), cnn.get(10), cnn.get(11)))

    def value(self) -> Comp:
        return Comp(
            self.id,
            self.family,
            self.given,
            self.middle,
            self.suffix,
            self.prefix,
            self.degree,
            None,
            self.authority.sub(),
            self.name_type,
            None,
            None,
            self.id_type,
        )


@dataclass(frozen=True, slots=True)
class CWE:
    """Coded element (CE, CNE, CWE), with its alternate triplet. Systems are named as in table 0396 (LN, SCT, I10, L, ...)."""

    code: str = ""
    text: str = ""
    system: str = ""
    alternate_code: str = ""
    alternate_text: str = ""
    alternate_system: str = ""
    version: str = ""
    alternate_version: str = ""
    original_text: str = ""

    @classmethod
    def from_field(cls, field: Field) -> "CWE":
        return cls(*(field.get(number) for number in range(1, 10)))

    def value(self) -> Comp:
        return Comp(
            self.code,
            self.text,
            self.system,
            self.alternate_code,
            self.alternate_text,
            self.alternate_system,
            self.version,
            self.alternate_version,
            self.original_text,
        )
