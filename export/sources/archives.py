"""Archives of PyTorch, held to data before PyTorch sees them.

`torch.export.load` is no reader of data: of such an archive it would load a library, unpickle
objects, import modules by name, evaluate symbolic expressions as Python, and look operators up by
their paths under `torch`, where the standard library's modules are found too. TorchScript is a
language of its own, whose operators can write files. So an archive is read here, and only what is
known to be data is written anew, for PyTorch to read; any other is refused.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxplain.errors import SourceError
from onnxplain.files import scratch
from onnxplain.printable import printable
from onnxplain.reading import opened

_MEMBERS = re.compile(
    r"""[^/]+/(
        models/[\w.-]+\.json
        | data/weights/(weight_\d+ | [\w.-]+\.(json|pt))
        | data/constants/(tensor_\d+ | [\w.-]+\.(json|pt))
        | data/sample_inputs/[\w.-]+\.pt
        | extra/.* | \.data/\w+ | archive_format | archive_version | byteorder | version
    )""",
    re.VERBOSE,
)
_DESCRIPTION = re.compile(r"[^/]+/models/[^/]+\.json")
_CODE = re.compile(r"[^/]+/code/.*\.py")
_OUTWARD = {
    *("from_file", "load", "load_library", "read_file", "save", "write_file"),
    *("print", "warn"),  # to the terminal, whose control characters they would be
}
_LIBRARIES = {"aten", "prim", "prims", "quantized", "torchvision"}
_LONGEST = 256 << 20  # bytes of a program's description
_UNPACKED = 16 << 20  # bytes of what is compressed, which weights are not

_OPERATORS = re.compile(
    r"""torch\.ops\.(aten|prims|torchvision|quantized|quantized_decomposed|higher_order)
        (\.(?!from_file)[A-Za-z]\w*|\._[A-Za-z]\w*){1,2}
    | torch\._?sym_[a-z]\w*
    | math\.(ceil|floor|sqrt|trunc)
    | _operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|sub
        |truediv|pow)""",
    re.VERBOSE,
)

_FUNCTIONS = {
    *("Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "FloatTrueDiv", "Float"),
    *("FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv", "Integer"),
    *("IsNonOverlappingAndDenseIndicator", "Le", "LessThan", "Lt", "Max", "Min", "Mod"),
    *("ModularIndexing", "Mul", "Ne", "Not", "Or", "PythonMod", "Rational", "RoundToInt"),
    *("StrictGreaterThan", "StrictLessThan", "Equality", "Unequality", "Symbol", "ToFloat"),
    *("TruncToFloat", "TruncToInt", "Where", "Xor", "ceiling", "floor"),
}
_POWERS = {"Pow", "PowByNatural"}
_ASSUMPTIONS = {"positive", "integer", "nonnegative", "negative", "real", "finite", "precision"}
_ASSUMPTIONS |= {"zero", "nonzero", "even", "odd", "evaluate"}
_SYMBOL = re.compile(r"[A-Za-z]\w{0,63}")
_NUMBER = 2**64
_POWER = 64


@contextmanager
def program(path: Path) -> Iterator[str]:
    """The path of a copy of a `torch.export` program, of which PyTorch can run nothing.

    Raises:
        SourceError: it holds more than weights and a graph of PyTorch's own operators.
    """
    with _copied(path, _MEMBERS, _DESCRIPTION, _check_description) as copy:
        yield copy


@contextmanager
def script(path: Path) -> Iterator[str]:
    """The path of a copy of a TorchScript archive, whose code touches no file.

    Raises:
        SourceError: it calls an operator that reads or writes files, or that is none of PyTorch's.
    """
    with _copied(path, re.compile("(?s).+"), _CODE, _check_code) as copy:
        yield copy


@contextmanager
def _copied(
    path: Path,
    members: re.Pattern[str],
    text: re.Pattern[str],
    check: Callable[[Path, bytes], None],
) -> Iterator[str]:
    """A copy of an archive, as two readers of one file may take it for two different ones.

    Args:
        members: what the names of its files may be.
        text: the names of those that `check(path, content)` refuses or not.
    """
    with opened(path) as file, scratch() as folder:
        copy = Path(folder, f"copy{path.suffix}")
        with zipfile.ZipFile(file) as source, zipfile.ZipFile(copy, "w") as target:
            found = source.infolist()
            if len({member.filename for member in found}) < len(found):
                raise _refused(path, "two files of one name")
            for member in found:
                name = member.filename
                if not members.fullmatch(name) or printable(name) != name:
                    raise _refused(path, f"the file {member.filename!r}")
                packed = member.compress_type != zipfile.ZIP_STORED
                if packed and member.file_size > _UNPACKED:
                    raise _refused(path, f"the compressed file {member.filename!r}")
                if text.fullmatch(member.filename):
                    if member.file_size > _LONGEST:
                        raise _refused(path, f"a description of {member.file_size:,} bytes")
                    check(path, source.read(member))
                with source.open(member) as reading, target.open(member.filename, "w") as writing:
                    while block := reading.read(1 << 20):
                        writing.write(block)
        yield str(copy)


def _check_code(path: Path, code: bytes) -> None:
    """Refuse what reaches files or the terminal, and operators of others, in TorchScript's code."""
    try:
        tokens = [
            token.string
            for token in tokenize.tokenize(io.BytesIO(code).readline)
            if token.type in (tokenize.NAME, tokenize.OP)
        ]
    except (tokenize.TokenError, SyntaxError) as error:
        raise _refused(path, f"code that cannot be read ({error})") from error
    for name in sorted({*tokens} & _OUTWARD):
        raise _refused(path, f"a call of {name!r}")
    for at, token in enumerate(tokens):
        if token == "ops" and tokens[at + 1 : at + 2] == ["."]:  # noqa: S105  (of Python's grammar)
            library = "".join(tokens[at + 2 : at + 3])
            if library not in _LIBRARIES:
                raise _refused(path, f"an operator of {library!r}")


def _check_description(path: Path, content: bytes) -> None:
    _check(path, json.loads(content))


def _check(path: Path, described: Any) -> None:
    """Hold every expression, operator and tree of a program's description to what is data."""
    for key, value in _entries(described):
        if key == "expr_str" and not is_expression(value):
            raise _refused(path, f"the expression {value!r:.80}")
        if key == "target" and not (isinstance(value, str) and _OPERATORS.fullmatch(value)):
            raise _refused(path, f"the operator {value!r:.80}")
        if key in ("in_spec", "out_spec") and isinstance(value, str):
            _check_tree(path, json.loads(value))
        if key == "guards_code" and value:
            raise _refused(path, "guards, which are Python")


def _check_tree(path: Path, tree: Any) -> None:
    """Refuse what PyTorch would import: a default dictionary's factory, and enumerations."""
    for key, value in _entries(tree):
        if key == "__enum__" or (key == "type" and value == "collections.defaultdict"):
            raise _refused(path, f"the type {value!r:.80}")
        if key == "context" and isinstance(value, str):
            _check_tree(path, json.loads(value))


def _entries(tree: Any) -> Iterator[tuple[str, Any]]:
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def is_expression(text: object) -> bool:
    """Whether a text is arithmetic of symbols and numbers in sympy's functions, and no more."""
    if not isinstance(text, str) or len(text) > 100_000:
        return False
    try:
        return _is_arithmetic(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() | float() as number):
            return abs(number) <= _NUMBER
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
            return _is_arithmetic(inner)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Compare(left=left, comparators=[right], ops=[operation]):
            ordered = not isinstance(operation, ast.In | ast.NotIn | ast.Is | ast.IsNot)
            return ordered and _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Name(id=name):
            return bool(re.fullmatch(r"[a-z]+\d+|true|false|oo|int_oo", name))
        case ast.Call(func=ast.Name(id=name), args=operands, keywords=keywords):
            assumed = all(
                word.arg in _ASSUMPTIONS
                and isinstance(word.value, ast.Constant)
                and isinstance(word.value.value, bool | int)
                for word in keywords
            )
            return assumed and _is_call(name, operands)
    return False


def _is_call(name: str, operands: list[ast.expr]) -> bool:
    if name in ("Symbol", "Float") and len(operands) == 1:
        (operand,) = operands
        if isinstance(operand, ast.Constant) and isinstance(operand.value, str):
            pattern = _SYMBOL if name == "Symbol" else re.compile(r"[-+.\deE]{1,64}")
            return bool(pattern.fullmatch(operand.value))
    if name in _POWERS:
        match operands:
            case [base, ast.Call(func=ast.Name(id="Integer"), args=[power])] | [base, power]:
                try:
                    small = abs(ast.literal_eval(power)) <= _POWER
                except (TypeError, ValueError):
                    return False
                called = {part.id for part in ast.walk(base) if isinstance(part, ast.Name)}
                return small and called.isdisjoint(_POWERS) and _is_arithmetic(base)
    return name in _FUNCTIONS and all(map(_is_arithmetic, operands))


def _refused(path: Path, what: str) -> SourceError:
    return SourceError(
        f"{path} is not loaded: it holds {what}, with which a file could run code. If you trust "
        "it, load it in Python (torch.export.load, torch.jit.load) and pass it to onnxplain.export"
    )
