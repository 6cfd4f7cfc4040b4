/* Says what a confined process is and may: one line a fact. `denied`, `no call` and `allowed` are of system calls. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *verdict(long result, int error) {
    static char other[32];
    if (result >= 0) return "allowed";
    if (error == EPERM) return "denied";
    if (error == ENOSYS) return "no call";
    snprintf(other, sizeof other, "error %d", error);
    return other;
}

#define TRY(name, ...) do { errno = 0; long r = syscall(__VA_ARGS__); printf("%s: %s\n", name, verdict(r, errno)); } while (0)

static void status(void) {
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, "Cap", 3) || !strncmp(line, "Seccomp:", 8) || !strncmp(line, "NoNewPrivs", 10))
            fputs(line, stdout);
    fclose(file);
}

static void ids(const char *name) {
    char path[64];
    unsigned inside = 0, outside = 0, count = 0;
    snprintf(path, sizeof path, "/proc/self/%s", name);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%u %u %u", &inside, &outside, &count) == 3)
        printf("%s: %s\n", name, inside == outside && count == 4294967295u ? "the machine's" : "its own");
    if (file) fclose(file);
}

/* What is hidden is not there, is empty, or cannot be opened. */
static void hidden(const char *path) {
    struct stat about;
    char byte;
    int shown = 0;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
        DIR *dir = opendir(path);
        struct dirent *entry;
        while (dir && (entry = readdir(dir))) shown += entry->d_name[0] != '.';
        if (dir) closedir(dir);
    } else {
        int file = open(path, O_RDONLY | O_NONBLOCK);
        shown = file >= 0 && read(file, &byte, 1) == 1;
        if (file >= 0) close(file);
    }
    printf("%s: %s\n", path, shown ? "shown" : "hidden");
}

/* Opened, never written. */
static void fixed(const char *path) {
    struct stat about;
    int file = open(path, O_WRONLY | O_NONBLOCK);
    if (file < 0 && errno == EISDIR) file = open(path, O_TMPFILE | O_WRONLY, 0600);
    if (file < 0 && stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
        char inside[256];
        snprintf(inside, sizeof inside, "%s/probe", path);
        file = mkdir(inside, 0700) == 0 ? (rmdir(inside), 0) : -1;
    }
    printf("%s: %s\n", path, file >= 0 ? "WRITABLE" : "fixed");
    if (file > 2) close(file);
}

#ifdef __x86_64__
static long old_call(long number, long first, long second) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second) : "memory");
    return result;
}
#endif

static void calls(void) {
    TRY("mount", SYS_mount, "a", "/tmp", "tmpfs", 0L, 0L);
    TRY("remount", SYS_mount, "", "/proc/sys", "", 0x1020L, 0L);
    TRY("umount2", SYS_umount2, "/proc", 2L);
    TRY("unshare user", SYS_unshare, CLONE_NEWUSER);
    TRY("unshare mount", SYS_unshare, CLONE_NEWNS);
    TRY("setns", SYS_setns, 0L, 0L);
    TRY("keyctl", SYS_keyctl, 0L, 0L, 0L);
    TRY("add_key", SYS_add_key, "user", "a", "b", 1L, -3L);
    TRY("request_key", SYS_request_key, "user", "a", 0L, 0L);
    TRY("bpf", SYS_bpf, 0L, 0L, 0L);
    TRY("perf_event_open", SYS_perf_event_open, 0L, 0L, 0L, 0L, 0L);
    TRY("userfaultfd", SYS_userfaultfd, 0L);
    TRY("io_uring_setup", 425L, 1L, 0L);
    TRY("io_uring_enter", 426L, 0L, 0L, 0L, 0L, 0L);
    TRY("io_uring_register", 427L, 0L, 0L, 0L, 0L);
    TRY("kexec_load", SYS_kexec_load, 0L, 0L, 0L, 0L);
    TRY("kexec_file_load", SYS_kexec_file_load, 0L, 0L, 0L, "", 0L);
    TRY("open_by_handle_at", SYS_open_by_handle_at, 0L, 0L, 0L);
    TRY("open_tree", 428L, -100L, "/", 1L);
    TRY("move_mount", 429L, -100L, "/", -100L, "/tmp", 0L);
    TRY("fsopen", 430L, "tmpfs", 0L);
    TRY("fsmount", 432L, 0L, 0L, 0L);
    TRY("mount_setattr", 442L, -100L, "/", 0L, 0L, 0L);
    TRY("pivot_root", SYS_pivot_root, "/", "/tmp");
    TRY("reboot", SYS_reboot, 0L, 0L, 0L, 0L);
    TRY("init_module", SYS_init_module, 0L, 0L, "");
    TRY("finit_module", SYS_finit_module, 0L, "", 0L);
    TRY("delete_module", SYS_delete_module, "", 0L);
    TRY("swapon", SYS_swapon, "/tmp", 0L);
    TRY("syslog", SYS_syslog, 3L, 0L, 0L);
    TRY("quotactl", SYS_quotactl, 0L, 0L, 0L, 0L);
    TRY("acct", SYS_acct, 0L);
    TRY("settimeofday", SYS_settimeofday, 0L, 0L);
    TRY("sethostname", SYS_sethostname, "x", 1L);
    TRY("socket AF_ALG", SYS_socket, 38L, SOCK_SEQPACKET, 0L);
    TRY("socket AF_ALG, high bits", SYS_socket, 0x100000026L, SOCK_SEQPACKET, 0L);
    TRY("socket AF_VSOCK", SYS_socket, 40L, SOCK_STREAM, 0L);
    TRY("clone a user namespace", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0L, 0L, 0L, 0L);
    TRY("an odd personality", SYS_personality, 0x0040000L);
    TRY("TIOCSTI", SYS_ioctl, 0L, 0x5412L, "x");
    TRY("TIOCSTI, high bits", SYS_ioctl, 0L, 0x100005412L, "x");
    TRY("TIOCLINUX", SYS_ioctl, 0L, 0x541CL, "\2");
    TRY("clone3", 435L, 0L, 0L);
    TRY("a call of tomorrow", 5000L, 0L);
#ifdef __x86_64__
    long result = old_call(20, 0, 0);
    printf("int 0x80 getpid: %s\n", verdict(result < 0 ? -1 : 0, (int)-result));
    result = old_call(102, 1, 0);
    printf("int 0x80 socketcall: %s\n", verdict(result < 0 ? -1 : 0, (int)-result));
    TRY("x32 getpid", 0x40000000L + 39);
#else
    puts("int 0x80 getpid: no call\nint 0x80 socketcall: no call\nx32 getpid: no call");
#endif
    TRY("socket AF_INET", SYS_socket, AF_INET, SOCK_STREAM, 0L);
    TRY("socket AF_UNIX", SYS_socket, AF_UNIX, SOCK_STREAM, 0L);
    TRY("socket AF_NETLINK", SYS_socket, AF_NETLINK, SOCK_RAW, 0L);
    TRY("personality", SYS_personality, 0xffffffffL);
}

int main(void) {
    static const char *const secrets[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg",
        "/proc/latency_stats", "/proc/modules", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
        "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/debug",
        "/sys/kernel/tracing", "/sys/kernel/security", NULL };
    static const char *const kernels[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe", "/proc/sys/vm",
        "/proc/sysrq-trigger", "/proc/irq/0/smp_affinity", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/kcore",
        "/proc/acpi", "/proc/self/attr", "/sys", "/sys/kernel/uevent_helper", "/sys/fs/cgroup",
        "/sys/fs/cgroup/cgroup.procs", "/sys/firmware", "/sys/class/net", NULL };
    setvbuf(stdout, NULL, _IONBF, 0);
    status();
    ids("uid_map");
    ids("gid_map");
    for (int i = 0; secrets[i]; i++) hidden(secrets[i]);
    for (int i = 0; kernels[i]; i++) fixed(kernels[i]);
    calls();
    printf("user: %d\n", geteuid());
    return 0;
}
