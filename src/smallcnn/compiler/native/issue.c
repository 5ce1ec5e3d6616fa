/* A kernel of instructions that do nothing: how many a processor issues, whatever its units could compute. */

#define LINES(n) #n
#define REPEATED(instruction, n) ".rept " LINES(n) "\n" instruction "\n.endr"

int issue_argv(void **arguments) {
    (void)arguments;
    for (int i = 0; i < ISSUE_TURNS; i++)
#ifdef __x86_64__
        __asm__ volatile(REPEATED("nopl 0(%%rax)", 96) : : : "memory"); /* four bytes: one byte each is too dense for the decoders */
#else
        __asm__ volatile(REPEATED("nop", 96) : : : "memory");
#endif
    return 0;
}
