// A PKCS #11 module (v2.40) that forwards each call to another module and
// misbehaves to order: see shim.go, which compiles and drives it. It needs
// nothing but libc.
//
// Beside the file it is loaded from lies FILE.conf with lines
//     module=PATH      the module that does the work
//     socket=PATH      Unix socket on which orders are taken
//     reserved=TEXT    given as pReserved to the module's C_Initialize
//     logins=PATH      each C_Login adds a line there: process number and return value
//
// All arguments of Cryptoki are words on the LP64 machines this is for, so a
// call is a number and up to eight words.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long word;

_Static_assert(sizeof(word) == 8 && sizeof(void *) == 8, "LP64 only");

// In the order of the function list (PKCS #11 v2.40, pkcs11f.h), with arity.
#define FUNCTIONS(X) \
    X(C_Initialize,1) X(C_Finalize,1) X(C_GetInfo,1) X(C_GetFunctionList,1) X(C_GetSlotList,3) X(C_GetSlotInfo,2) \
    X(C_GetTokenInfo,2) X(C_GetMechanismList,3) X(C_GetMechanismInfo,3) X(C_InitToken,4) X(C_InitPIN,3) X(C_SetPIN,5) \
    X(C_OpenSession,5) X(C_CloseSession,1) X(C_CloseAllSessions,1) X(C_GetSessionInfo,2) X(C_GetOperationState,3) \
    X(C_SetOperationState,5) X(C_Login,4) X(C_Logout,1) X(C_CreateObject,4) X(C_CopyObject,5) X(C_DestroyObject,2) \
    X(C_GetObjectSize,3) X(C_GetAttributeValue,4) X(C_SetAttributeValue,4) X(C_FindObjectsInit,3) X(C_FindObjects,4) \
    X(C_FindObjectsFinal,1) X(C_EncryptInit,3) X(C_Encrypt,5) X(C_EncryptUpdate,5) X(C_EncryptFinal,3) X(C_DecryptInit,3) \
    X(C_Decrypt,5) X(C_DecryptUpdate,5) X(C_DecryptFinal,3) X(C_DigestInit,2) X(C_Digest,5) X(C_DigestUpdate,3) \
    X(C_DigestKey,2) X(C_DigestFinal,3) X(C_SignInit,3) X(C_Sign,5) X(C_SignUpdate,3) X(C_SignFinal,3) \
    X(C_SignRecoverInit,3) X(C_SignRecover,5) X(C_VerifyInit,3) X(C_Verify,5) X(C_VerifyUpdate,3) X(C_VerifyFinal,3) \
    X(C_VerifyRecoverInit,3) X(C_VerifyRecover,5) X(C_DigestEncryptUpdate,5) X(C_DecryptDigestUpdate,5) \
    X(C_SignEncryptUpdate,5) X(C_DecryptVerifyUpdate,5) X(C_GenerateKey,5) X(C_GenerateKeyPair,8) X(C_WrapKey,6) \
    X(C_UnwrapKey,8) X(C_DeriveKey,6) X(C_SeedRandom,3) X(C_GenerateRandom,3) X(C_GetFunctionStatus,1) \
    X(C_CancelFunction,1) X(C_WaitForSlotEvent,3)

#define ID(name, n) F_##name,
enum { FUNCTIONS(ID) F_COUNT };
#define NAME(name, n) #name,
static const char *const names[] = { FUNCTIONS(NAME) };

struct list {
    unsigned char major, minor;
    word (*f[F_COUNT])();
};
_Static_assert(F_COUNT == 68, "the v2.40 list has 68 functions");

enum {
    OK = 0, GENERAL_ERROR = 5, DEVICE_REMOVED = 0x32, SESSION_COUNT = 0xB1, SESSION_INVALID = 0xB3,
    PIN_FIRST = 0xA0, PIN_LAST = 0xA4, TOKEN_NOT_PRESENT = 0xE0,
};

// What a rule does to the module before the call goes on.
enum act { ACT_NONE, ACT_CLOSE, ACT_CLOSEALL, ACT_LOGOUT, ACT_CRASH };
enum output { OUT_KEEP, OUT_FLIP, OUT_CUT, OUT_ZERO };

struct rule {
    char call[40]; // a name, or the beginning of one and '*'
    word rv;       // 0: the call is made
    int lost;      // the call is made, and rv given in place of its answer
    long after, count; // matching calls passed over; fired at most, 0: no end
    double rate;   // of the calls left, 0: all
    uint64_t seed;
    long delay_us;
    int hang;
    int filled;    // only calls with somewhere to put the answer, not questions for its length
    enum act act;
    enum output output;
};

#define MAX_RULES 64
#define MAX_SESSIONS 4096
#define MAX_OBJECTS 4096

static struct list *real;
static char module_path[1024], socket_path[108], reserved[2048], logins_path[1024];
static pthread_once_t loaded = PTHREAD_ONCE_INIT;

// lock guards all below it; it is never held during a call.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static struct rule rules[MAX_RULES];
static int n_rules, hidden, inside, opening;
static unsigned long epoch; // a hung call goes on when it changes
static word limit;          // sessions at a time, 0: the module's own limit
static struct { word calls, faults; } counts[F_COUNT];
static word pin_refused, races, rude, peak, hanging;
static struct { word handle, slot; int users; } sessions[MAX_SESSIONS];
static int n_sessions;
static struct { word handle, session; } objects[MAX_OBJECTS]; // session objects made by the calls that make one
static int n_objects;

// module lets the orders that close sessions wait until nobody is in the
// module: SoftHSM 2.6.1 does not stand it otherwise.
static pthread_rwlock_t module;

static int takes_session(int f) {
    switch (f) {
    case F_C_Initialize: case F_C_Finalize: case F_C_GetInfo: case F_C_GetFunctionList: case F_C_GetSlotList:
    case F_C_GetSlotInfo: case F_C_GetTokenInfo: case F_C_GetMechanismList: case F_C_GetMechanismInfo: case F_C_InitToken:
    case F_C_OpenSession: case F_C_CloseAllSessions: case F_C_WaitForSlotEvent:
        return 0;
    }
    return 1;
}

static int takes_slot(int f) {
    return f == F_C_GetTokenInfo || f == F_C_GetMechanismList || f == F_C_GetMechanismInfo || f == F_C_InitToken ||
           f == F_C_OpenSession || f == F_C_CloseAllSessions;
}

// where an answer of variable length and its length are; 0 when there is none.
static int answer(int f, int *length) {
    switch (f) {
    case F_C_Encrypt: case F_C_Decrypt: case F_C_Digest: case F_C_Sign: case F_C_EncryptUpdate: case F_C_DecryptUpdate:
    case F_C_SignRecover: case F_C_VerifyRecover:
        *length = 4;
        return 3;
    case F_C_WrapKey:
        *length = 5;
        return 4;
    case F_C_EncryptFinal: case F_C_DecryptFinal: case F_C_DigestFinal: case F_C_SignFinal:
        *length = 2;
        return 1;
    }
    return 0;
}

static int index_of(word handle) {
    for (int i = 0; i < n_sessions; i++)
        if (sessions[i].handle == handle) return i;
    return -1;
}

// forget_objects forgets the session objects of one session: they end with it.
static void forget_objects(word session) {
    for (int i = n_objects - 1; i >= 0; i--)
        if (objects[i].session == session) objects[i] = objects[--n_objects];
}

static void forget_at(int i) {
    forget_objects(sessions[i].handle);
    sessions[i] = sessions[--n_sessions];
}

static void forget(word handle) {
    int i = index_of(handle);
    if (i >= 0) forget_at(i);
}

// forget_slot forgets the sessions of one slot, or of all for all ones.
static void forget_slot(word slot) {
    for (int i = n_sessions - 1; i >= 0; i--)
        if (slot == ~0ul || sessions[i].slot == slot) forget_at(i);
}

static double chance(uint64_t *state) { // splitmix64
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

// match finds the first rule in force for the call. lock is held.
static int match(int f, int filled, struct rule *found) {
    for (int i = 0; i < n_rules; i++) {
        struct rule *r = &rules[i];
        size_t n = strlen(r->call);
        int fits = n && r->call[n - 1] == '*' ? !strncmp(r->call, names[f], n - 1) : !strcmp(r->call, names[f]);
        if (!fits || (r->filled && !filled)) continue;
        if (r->after > 0) { r->after--; continue; }
        if (r->rate > 0 && chance(&r->seed) >= r->rate) continue;
        if (r->count < 0) continue;
        if (r->count > 0 && --r->count == 0) r->count = -1;
        *found = *r;
        return 1;
    }
    return 0;
}

static void pause_us(long us) {
    struct timespec t = { us / 1000000, us % 1000000 * 1000 };
    while (nanosleep(&t, &t)) {}
}

// drop closes every session below the caller. With logout it ends the logins
// and leaves the sessions.
static word drop(int logout) {
    word rv = OK, slots[64], handles[64];
    int n = 0;
    pthread_rwlock_wrlock(&module);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_sessions; i++) {
        int seen = 0;
        for (int j = 0; j < n; j++) seen |= slots[j] == sessions[i].slot;
        if (!seen && n < 64) {
            slots[n] = sessions[i].slot;
            handles[n++] = sessions[i].handle;
        }
    }
    if (!logout) forget_slot(~0ul);
    pthread_mutex_unlock(&lock);
    for (int j = 0; j < n; j++) {
        word one = logout ? real->f[F_C_Logout](handles[j]) : real->f[F_C_CloseAllSessions](slots[j]);
        if (one) rv = one;
    }
    pthread_rwlock_unlock(&module);
    return rv;
}

static void damage(int f, enum output how, word *a) {
    int length, at = answer(f, &length);
    unsigned char *p;
    word n, *len = NULL;
    if (f == F_C_GenerateRandom) {
        p = (unsigned char *)a[1], n = a[2];
    } else if (f == F_C_FindObjects) { // fewer are found
        *(word *)a[3] = 0;
        return;
    } else if (at) {
        p = (unsigned char *)a[at], len = (word *)a[length], n = *len;
    } else {
        return;
    }
    if (!p || !n) return;
    switch (how) {
    case OUT_FLIP: p[n / 2] ^= 0x10; break;
    case OUT_ZERO: memset(p, 0, n); break;
    case OUT_CUT: if (len) *len = n - 1; break;
    case OUT_KEEP: break;
    }
}

// instead is the answer of an empty slot, or of a token without a session to
// spare; ~0 means that the call is made. lock is held.
static word instead(int f, word *a) {
    if (f == F_C_OpenSession && !hidden && limit && (word)(n_sessions + opening) >= limit) return SESSION_COUNT;
    if (!hidden) return ~0ul;
    if (f == F_C_GetSlotList && a[0]) { *(word *)a[2] = 0; return OK; }
    if (takes_slot(f)) return TOKEN_NOT_PRESENT;
    if (takes_session(f)) return DEVICE_REMOVED;
    return ~0ul;
}

static word forward(int f, word *a) {
    // One word more: NSS has a longer struct.
    struct { word fn[4], flags; const void *reserved; word end; } args;
    pthread_mutex_lock(&lock);
    word answered = instead(f, a);
    if (answered == ~0ul && f == F_C_OpenSession) opening++;
    pthread_mutex_unlock(&lock);
    if (answered != ~0ul) return answered;
    if (f == F_C_Initialize && reserved[0]) {
        memset(&args, 0, sizeof args);
        if (a[0]) memcpy(&args, (void *)a[0], 5 * sizeof(word));
        args.reserved = reserved;
        a[0] = (word)&args;
    }
    // Who finalises under others is counted, and made to wait all the same.
    if (f == F_C_Finalize) pthread_rwlock_wrlock(&module);
    else pthread_rwlock_rdlock(&module);
    word rv = real->f[f](a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
    pthread_mutex_lock(&lock);
    switch (f) {
    case F_C_OpenSession:
        opening--;
        if (!rv && n_sessions < MAX_SESSIONS) {
            sessions[n_sessions].handle = *(word *)a[4];
            sessions[n_sessions].users = 0;
            sessions[n_sessions++].slot = a[0];
            if ((word)n_sessions > peak) peak = n_sessions;
        }
        break;
    case F_C_CloseSession:
        if (!rv || rv == SESSION_INVALID) forget(a[0]);
        break;
    case F_C_CloseAllSessions:
        if (!rv) forget_slot(a[0]);
        break;
    case F_C_Finalize:
        if (!rv) forget_slot(~0ul);
        break;
    case F_C_CreateObject: case F_C_UnwrapKey:
        if (!rv && n_objects < MAX_OBJECTS) {
            objects[n_objects].handle = *(word *)a[f == F_C_CreateObject ? 3 : 7];
            objects[n_objects++].session = a[0];
        }
        break;
    case F_C_DestroyObject:
        for (int i = n_objects - 1; !rv && i >= 0; i--)
            if (objects[i].handle == a[1]) objects[i] = objects[--n_objects];
        break;
    case F_C_Login:
        if (rv >= PIN_FIRST && rv <= PIN_LAST) pin_refused++;
        break;
    }
    pthread_mutex_unlock(&lock);
    pthread_rwlock_unlock(&module);
    if (f == F_C_GetSlotInfo && !rv && hidden) *(word *)(a[1] + 96) &= ~1ul; // CKF_TOKEN_PRESENT
    return rv;
}

static void load(void);

static int *volatile nowhere;

static word misbehave(int f, struct rule *r, word *a) {
    if (r->delay_us) pause_us(r->delay_us);
    if (r->hang) {
        pthread_mutex_lock(&lock);
        hanging++;
        for (unsigned long now = epoch; now == epoch;) pthread_cond_wait(&released, &lock);
        hanging--;
        pthread_mutex_unlock(&lock);
    }
    switch (r->act) {
    case ACT_CLOSE:
        if (takes_session(f)) { word one[8] = { a[0] }; forward(F_C_CloseSession, one); }
        break;
    case ACT_CLOSEALL: drop(0); break;
    case ACT_LOGOUT: drop(1); break;
    case ACT_CRASH: *(volatile int *)nowhere = 0; break;
    case ACT_NONE: break;
    }
    if (r->rv && !r->lost) {
        if (f == F_C_Login && r->rv >= PIN_FIRST && r->rv <= PIN_LAST) {
            pthread_mutex_lock(&lock);
            pin_refused++;
            pthread_mutex_unlock(&lock);
        }
        return r->rv;
    }
    word rv = forward(f, a);
    if (r->lost && r->rv) return r->rv;
    if (!rv && r->output) damage(f, r->output, a);
    return rv;
}

// note_login survives the process, unlike the counts.
static void note_login(word rv) {
    FILE *f = logins_path[0] ? fopen(logins_path, "ae") : NULL;
    if (!f) return;
    fprintf(f, "%d %lu\n", (int)getpid(), rv);
    fclose(f);
}

static word call(int f, word *a) {
    pthread_once(&loaded, load);
    if (!real) return GENERAL_ERROR;
    int length, at = answer(f, &length), fired, s;
    struct rule r = { 0 };
    word rv;
    pthread_mutex_lock(&lock);
    counts[f].calls++;
    if (f == F_C_Finalize && inside) rude++;
    inside++;
    s = takes_session(f) ? index_of(a[0]) : -1;
    if (s >= 0 && sessions[s].users++) races++;
    fired = match(f, !at || a[at], &r);
    if (fired) counts[f].faults++;
    pthread_mutex_unlock(&lock);
    rv = fired ? misbehave(f, &r, a) : forward(f, a);
    if (f == F_C_Login) note_login(rv);
    pthread_mutex_lock(&lock);
    inside--;
    if (takes_session(f) && (s = index_of(a[0])) >= 0 && sessions[s].users) sessions[s].users--;
    pthread_mutex_unlock(&lock);
    return rv;
}

static word get_function_list(word where);

#define P1 word a
#define P2 P1, word b
#define P3 P2, word c
#define P4 P3, word d
#define P5 P4, word e
#define P6 P5, word g
#define P8 P6, word h, word i
#define A1 a
#define A2 A1, b
#define A3 A2, c
#define A4 A3, d
#define A5 A4, e
#define A6 A5, g
#define A8 A6, h, i
#define STUB(name, n) static word s_##name(P##n) { word args[8] = { A##n }; \
    return F_##name == F_C_GetFunctionList ? get_function_list(args[0]) : call(F_##name, args); }
FUNCTIONS(STUB)

#define ENTRY(name, n) (word (*)())s_##name,
static struct list ours = { 2, 40, { FUNCTIONS(ENTRY) } };

static word get_function_list(word where) {
    *(struct list **)where = &ours;
    return OK;
}

__attribute__((visibility("default"))) word C_GetFunctionList(struct list **where) {
    pthread_once(&loaded, load);
    if (!real) return GENERAL_ERROR;
    return get_function_list((word)where);
}

// ---- orders

static int set(struct rule *r, char *key, char *v) {
    if (!strcmp(key, "rv")) r->rv = strtoul(v, NULL, 0);
    else if (!strcmp(key, "lost")) r->lost = atoi(v);
    else if (!strcmp(key, "after")) r->after = atol(v);
    else if (!strcmp(key, "count")) r->count = atol(v);
    else if (!strcmp(key, "rate")) r->rate = atof(v);
    else if (!strcmp(key, "seed")) r->seed = strtoull(v, NULL, 0);
    else if (!strcmp(key, "delay")) r->delay_us = atol(v);
    else if (!strcmp(key, "hang")) r->hang = atoi(v);
    else if (!strcmp(key, "filled")) r->filled = atoi(v);
    else if (!strcmp(key, "act")) r->act = atoi(v);
    else if (!strcmp(key, "output")) r->output = atoi(v);
    else return 0;
    return 1;
}

static const char *add(char *words) {
    struct rule r = { 0 };
    char *save, *w = strtok_r(words, " ", &save);
    int known = 0;
    if (!w || strlen(w) >= sizeof r.call) return "no call";
    strcpy(r.call, w);
    for (int f = 0; f < F_COUNT; f++) known |= !strcmp(w, names[f]);
    if (!known && w[strlen(w) - 1] != '*') return "no such call";
    while ((w = strtok_r(NULL, " ", &save))) {
        char *v = strchr(w, '=');
        if (!v) return "no value";
        *v++ = 0;
        if (!set(&r, w, v)) return "no such key";
    }
    const char *err = "ok";
    pthread_mutex_lock(&lock);
    if (n_rules == MAX_RULES) err = "too many rules";
    else rules[n_rules++] = r;
    pthread_mutex_unlock(&lock);
    return err;
}

static void tell(FILE *out) {
    pthread_mutex_lock(&lock);
    for (int f = 0; f < F_COUNT; f++)
        if (counts[f].calls) fprintf(out, "%s %lu %lu\n", names[f], counts[f].calls, counts[f].faults);
    fprintf(out, "sessions %d\npeak %lu\npin-refused %lu\nraces %lu\nrude %lu\nhanging %lu\ninside %d\nobjects %d\n",
            n_sessions, peak, pin_refused, races, rude, hanging, inside, n_objects);
    pthread_mutex_unlock(&lock);
}

static void order(char *line, FILE *out) {
    const char *said = "ok";
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "rule ", 5)) said = add(line + 5);
    else if (!strcmp(line, "drop") || !strcmp(line, "logout")) {
        if (drop(line[0] == 'l')) said = "the module refused";
    } else if (!strcmp(line, "counts")) tell(out);
    else {
        // An empty slot has no sessions, and a login ends with the last.
        if (!strcmp(line, "hide")) drop(0);
        pthread_mutex_lock(&lock);
        if (!strcmp(line, "clear")) { n_rules = 0; epoch++; pthread_cond_broadcast(&released); }
        else if (!strcmp(line, "hide")) hidden = 1;
        else if (!strcmp(line, "show")) hidden = 0;
        else if (!strncmp(line, "limit ", 6)) limit = strtoul(line + 6, NULL, 0);
        else if (!strcmp(line, "reset")) {
            memset(counts, 0, sizeof counts);
            pin_refused = races = rude = 0;
            peak = n_sessions;
        } else said = "no such order";
        pthread_mutex_unlock(&lock);
    }
    fprintf(out, "%s\n", said);
}

static void *obey(void *arg) {
    int listener = (int)(intptr_t)arg;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) { pause_us(1000); continue; }
        FILE *f = fdopen(fd, "r+");
        char line[1024];
        if (!f) { close(fd); continue; }
        if (fgets(line, sizeof line, f)) order(line, f);
        fclose(f);
    }
    return NULL;
}

static int listen_at(const char *path) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    strcpy(to.sun_path, path);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&to, sizeof to) || listen(fd, 16)) { close(fd); return -1; }
    return fd;
}

static int configure(const char *file) {
    char line[4096], *v;
    FILE *f = fopen(file, "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (!(v = strchr(line, '='))) continue;
        *v++ = 0;
        if (!strcmp(line, "module")) snprintf(module_path, sizeof module_path, "%s", v);
        else if (!strcmp(line, "socket")) snprintf(socket_path, sizeof socket_path, "%s", v);
        else if (!strcmp(line, "logins")) snprintf(logins_path, sizeof logins_path, "%s", v);
        else if (!strcmp(line, "reserved")) snprintf(reserved, sizeof reserved, "%s", v);
    }
    fclose(f);
    return module_path[0] && socket_path[0];
}

static void load(void) {
    Dl_info self;
    char file[4096];
    pthread_rwlockattr_t fair;
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&module, &fair);
    if (!dladdr((void *)load, &self)) return;
    snprintf(file, sizeof file, "%s.conf", self.dli_fname);
    if (!configure(file)) { fprintf(stderr, "shim: %s cannot be used\n", file); return; }
    void *lib = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);
    word (*get)(struct list **) = lib ? (word (*)(struct list **))dlsym(lib, "C_GetFunctionList") : NULL;
    struct list *found = NULL;
    if (!get || get(&found)) { fprintf(stderr, "shim: %s is no module: %s\n", module_path, dlerror()); return; }
    int fd = listen_at(socket_path);
    if (fd < 0) { fprintf(stderr, "shim: cannot listen at %s\n", socket_path); return; }
    // The process's signals are not for this thread.
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, obey, (void *)(intptr_t)fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) { close(fd); return; }
    pthread_detach(thread);
    real = found;
}
