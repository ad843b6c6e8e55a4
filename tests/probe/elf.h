/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest program there is: it exits with status 0. It can be written into a memfd or an unnamed file without
 * reading any executable of the container, so that only the execution is on trial.
 */
#ifndef PORTCULLIS_TESTS_ELF_H
#define PORTCULLIS_TESTS_ELF_H

#include <elf.h>
#include <string.h>

#if defined(__x86_64__)
#define TINY_MACHINE EM_X86_64
/* mov eax, 60; xor edi, edi; syscall */
static const unsigned char tiny_code[] = { 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05 };
#elif defined(__aarch64__)
#define TINY_MACHINE EM_AARCH64
/* mov x8, #93; mov x0, #0; svc #0 */
static const unsigned char tiny_code[] = { 0xa8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4 };
#else
#error "no tiny program for this architecture"
#endif

struct tiny_elf {
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	unsigned char code[sizeof(tiny_code)];
};

static inline struct tiny_elf tiny_elf(void)
{
	const Elf64_Addr base = 0x400000;
	struct tiny_elf elf;

	memset(&elf, 0, sizeof(elf));
	memcpy(elf.header.e_ident, ELFMAG, SELFMAG);
	elf.header.e_ident[EI_CLASS] = ELFCLASS64;
	elf.header.e_ident[EI_DATA] = ELFDATA2LSB;
	elf.header.e_ident[EI_VERSION] = EV_CURRENT;
	elf.header.e_type = ET_EXEC;
	elf.header.e_machine = TINY_MACHINE;
	elf.header.e_version = EV_CURRENT;
	elf.header.e_entry = base + offsetof(struct tiny_elf, code);
	elf.header.e_phoff = offsetof(struct tiny_elf, segment);
	elf.header.e_ehsize = sizeof(Elf64_Ehdr);
	elf.header.e_phentsize = sizeof(Elf64_Phdr);
	elf.header.e_phnum = 1;
	elf.segment.p_type = PT_LOAD;
	elf.segment.p_flags = PF_R | PF_X;
	elf.segment.p_vaddr = base;
	elf.segment.p_paddr = base;
	elf.segment.p_filesz = sizeof(elf);
	elf.segment.p_memsz = sizeof(elf);
	elf.segment.p_align = 0x1000;
	memcpy(elf.code, tiny_code, sizeof(tiny_code));
	return elf;
}

#endif
