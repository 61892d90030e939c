// Starts a kernel by the 64-bit Linux boot protocol as Firecracker does (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): QEMU has no such
// loader, so this program is what it starts by PVH, with the kernel as initrd. It loads the ELF segments, makes boot_params from what PVH told,
// maps the first GiB one to one, and jumps to e_entry in long mode with rsi = boot_params.
//
//     gcc -m32 -ffreestanding -fno-pic -nostdlib -static -Wl,-Ttext=0x3000000,-e,start -Wl,--build-id=none -o linux64 linux64.c
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct module { u64 addr, len, cmdline, reserved; };
struct entry { u64 addr, len; u32 type, reserved; };
struct start_info { u32 magic, version, flags, modules; u64 modlist, cmdline, rsdp, memmap; u32 entries, reserved; };
struct elf { u8 ident[16]; u16 type, machine; u32 version; u64 entry, phoff, shoff; u32 flags; u16 ehsize, phentsize, phnum; };
struct segment { u32 type, flags; u64 offset, vaddr, paddr, filesz, memsz, align; };

static u8 boot_params[4096] __attribute__((aligned(4096), used));
static u64 pml4[512] __attribute__((aligned(4096)));
static u64 pdpt[512] __attribute__((aligned(4096)));
static u64 pd[512] __attribute__((aligned(4096)));
static u8 stack[4096] __attribute__((aligned(16), used));
static u64 gdt[4] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0};
static struct { u16 limit; u32 base; } __attribute__((packed)) gdt_pointer;

__asm__(".section .note.pvh, \"a\", @note\n.long 4, 4, 18\n.asciz \"Xen\"\n.long start\n.text\n"
        ".globl start\nstart: mov $stack + 4096, %esp\npush %ebx\ncall shim\n"
        // eax = entry: long mode with the tables above, then a far jump. (PAE; EFER.LME; paging.)
        ".globl enter\nenter: mov 4(%esp), %ebx\nmov 8(%esp), %eax\nmov %eax, %cr3\nmov %cr4, %eax\nor $0x20, %eax\nmov %eax, %cr4\n"
        "mov $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\nmov %cr0, %eax\nor $0x80000001, %eax\nmov %eax, %cr0\n"
        "ljmp $8, $1f\n.code64\n1: mov $boot_params, %esi\nmov $0x10, %eax\nmov %eax, %ds\nmov %eax, %ss\nmov %eax, %es\njmp *%rbx\n.code32\n");
void enter(u32 entry, u32 table);

static void put32(u32 at, u32 value) { *(u32 *)(boot_params + at) = value; }
static void copy(u8 *to, const u8 *from, u32 len) { while (len--) *to++ = *from++; }

void shim(struct start_info *info)
{
    struct module *kernel = (struct module *)(u32)info->modlist;
    struct elf *elf = (struct elf *)(u32)kernel->addr;
    struct segment *segment = (struct segment *)((u32)kernel->addr + (u32)elf->phoff);
    for (int i = 0; i < elf->phnum; i++, segment++)
        if (segment->type == 1)
            copy((u8 *)(u32)segment->paddr, (u8 *)elf + (u32)segment->offset, (u32)segment->filesz);
    struct entry *entry = (struct entry *)(u32)info->memmap;
    u8 *e820 = boot_params + 0x2d0;
    for (u32 i = 0; i < info->entries; i++, entry++, e820 += 20)
        copy(e820, (u8 *)entry, 20);
    put32(0x1e8, info->entries);
    // The kernel is its own initrd, so that there is one.
    put32(0x218, (u32)kernel->addr);
    put32(0x21c, (u32)kernel->len);
    put32(0x228, (u32)info->cmdline);
    for (u32 i = 0; i < 512; i++)
        pd[i] = ((u64)i << 21) | 0x83;
    pdpt[0] = (u32)pd | 3;
    pml4[0] = (u32)pdpt | 3;
    gdt_pointer.limit = sizeof gdt - 1;
    gdt_pointer.base = (u32)gdt;
    __asm__ volatile("lgdt %0" : : "m"(gdt_pointer));
    enter((u32)elf->entry, (u32)pml4);
}
