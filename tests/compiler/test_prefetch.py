"""Prefetches in LLVM's assembly; what comes out as machine code is in test_dots.py."""

from smallcnn.compiler.prefetch import prefetched

PLAIN = """\
define void @f(ptr %weights) {
head:
  br label %loop

loop:                                             ; preds = %loop, %head
  %at = getelementptr inbounds i8, ptr %weights, i64 %i
  %1 = load <8 x float>, ptr %at, align 4, !tbaa !1
  %2 = getelementptr i8, ptr %at, i64 32
  %3 = load <8 x float>, ptr %2, align 4, !tbaa !1
  %4 = getelementptr inbounds nuw i8, ptr %at, i64 64
  %5 = load <8 x float>, ptr %4, align 4, !tbaa !1
  %6 = load float, ptr %pixel, align 4, !tbaa !4
  br i1 %end, label %after, label %loop

after:
  %7 = load <8 x float>, ptr %at, align 4, !tbaa !1
  ret void
}

!0 = !{!"NAME", !3, i64 0}
!1 = !{!0, !0, i64 0}
!2 = !{!"operand0", !3, i64 0}
!3 = !{!"Halide buffer"}
!4 = !{!2, !2, i64 0}
"""


def test_each_line_that_a_block_reads_is_fetched_once_at_its_end():
    plain = PLAIN.replace("NAME", "operand1_ahead4096")
    lines = prefetched(plain).splitlines()
    calls = [i for i, line in enumerate(lines) if "call void @llvm.prefetch" in line]
    assert [lines[i - 1].split(" = ")[1] for i in calls] == [
        "getelementptr i8, ptr %at, i64 4096",
        "getelementptr i8, ptr %4, i64 4096",
        "getelementptr i8, ptr %at, i64 4096",  # another block
    ]
    names = [lines[i - 1].split(" = ")[0].strip() for i in calls]
    assert len(set(names)) == 3
    for i, name in zip(calls, names, strict=True):
        assert lines[i] == f"  tail call void @llvm.prefetch.p0(ptr {name}, i32 0, i32 2, i32 1)"
    assert lines[calls[1] + 1] == "  br i1 %end, label %after, label %loop"
    assert lines[calls[2] + 1] == "  ret void"
    assert lines[-1] == "declare void @llvm.prefetch.p0(ptr, i32 immarg, i32 immarg, i32 immarg)"
    assert [line for line in lines[:-1] if "ahead." not in line] == plain.splitlines()


def test_code_that_asks_for_none_stays_as_it_is():
    assert prefetched(PLAIN.replace("NAME", "operand1")) == PLAIN.replace("NAME", "operand1")
