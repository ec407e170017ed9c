// Makes Node-API refuse a call of the addon, on purpose: the addon's own table of imported functions gets a stand-in, which
// counts the calls of one function and refuses the one that was asked for. Nothing of this is in the addon.
// Linux with ELF; compiled by faults.test.ts.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NAPI_VERSION 8
#include <node_api.h>

#if defined(__x86_64__)
enum { kJumpSlot = R_X86_64_JUMP_SLOT, kGlobal = R_X86_64_GLOB_DAT };
#elif defined(__aarch64__)
enum { kJumpSlot = R_AARCH64_JUMP_SLOT, kGlobal = R_AARCH64_GLOB_DAT };
#endif

// Functions of Node-API take integers, pointers and at most one double; a register is passed on whether it is used or not.
typedef napi_status (*Any)(double, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*, void*);

static Any original;
static int calls, refused;

static napi_status stand_in(double x, void* a, void* b, void* c, void* d, void* e, void* f, void* g, void* h, void* i,
                            void* j, void* k, void* l) {
  if (__atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST) == refused) return napi_generic_failure;
  return original(x, a, b, c, d, e, f, g, h, i, j, k, l);
}

// Calls `visit` with each function that the library imports, and the place where its address stands.
static void each_import(const char* path, void (*visit)(const char* name, void** place, void* data), void* data) {
  struct link_map* map = dlopen(path, RTLD_LAZY);
  if (map == NULL) return;
  const char* strings = NULL;
  const ElfW(Sym)* symbols = NULL;
  const ElfW(Rela)* tables[2] = {NULL, NULL};
  size_t sizes[2] = {0, 0};
  for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_STRTAB) strings = (const char*)entry->d_un.d_ptr;
    if (entry->d_tag == DT_SYMTAB) symbols = (const ElfW(Sym)*)entry->d_un.d_ptr;
    if (entry->d_tag == DT_JMPREL) tables[0] = (const ElfW(Rela)*)entry->d_un.d_ptr;
    if (entry->d_tag == DT_PLTRELSZ) sizes[0] = entry->d_un.d_val;
    if (entry->d_tag == DT_RELA) tables[1] = (const ElfW(Rela)*)entry->d_un.d_ptr;
    if (entry->d_tag == DT_RELASZ) sizes[1] = entry->d_un.d_val;
  }
  for (int table = 0; table < 2; ++table) {
    for (size_t i = 0; i < sizes[table] / sizeof(ElfW(Rela)); ++i) {
      const ElfW(Rela)* relocation = &tables[table][i];
      const unsigned type = ELF64_R_TYPE(relocation->r_info);
      if (type != kJumpSlot && type != kGlobal) continue;
      const char* name = strings + symbols[ELF64_R_SYM(relocation->r_info)].st_name;
      if (strncmp(name, "napi_", 5) == 0) visit(name, (void**)(map->l_addr + relocation->r_offset), data);
    }
  }
  dlclose(map);
}

struct Change {
  const char* name;
  void* function;
  int places;
};

static void change_place(const char* name, void** place, void* data) {
  struct Change* change = data;
  if (strcmp(name, change->name) != 0) return;
  const uintptr_t page = (uintptr_t)place & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
  if (mprotect((void*)page, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE) != 0) return;
  *place = change->function;
  ++change->places;
}

static void text_of(napi_env env, napi_value value, char* text, size_t size) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, text, size, &length) != napi_ok) text[0] = 0;
}

static char armed_path[4096], armed_name[256];

// disarm(): the stand-in goes; returns how often it was called.
static napi_value disarm(napi_env env, napi_callback_info info) {
  struct Change change = {armed_name, (void*)original, 0};
  if (original != NULL) each_import(armed_path, change_place, &change);
  original = NULL;
  napi_value result;
  return napi_create_int32(env, calls, &result) == napi_ok ? result : NULL;
}

// arm(addon, name, n): from now on the addon's n-th call of the function (from 0) is refused; -1 refuses none.
// Returns whether the addon imports it.
static napi_value arm(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value values[3], result;
  if (napi_get_cb_info(env, info, &count, values, NULL, NULL) != napi_ok) return NULL;
  text_of(env, values[0], armed_path, sizeof armed_path);
  text_of(env, values[1], armed_name, sizeof armed_name);
  if (napi_get_value_int32(env, values[2], &refused) != napi_ok) return NULL;
  calls = 0;
  original = (Any)dlsym(RTLD_DEFAULT, armed_name);
  struct Change change = {armed_name, (void*)stand_in, 0};
  if (original != NULL) each_import(armed_path, change_place, &change);
  return napi_get_boolean(env, change.places > 0, &result) == napi_ok ? result : NULL;
}

struct Names {
  napi_env env;
  napi_value list;
  uint32_t count;
};

static void add_name(const char* name, void** place, void* data) {
  struct Names* names = data;
  napi_value text;
  if (napi_create_string_utf8(names->env, name, NAPI_AUTO_LENGTH, &text) == napi_ok)
    napi_set_element(names->env, names->list, names->count++, text);
}

// names(addon): the functions of Node-API that it imports.
static napi_value names(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value value;
  char path[4096];
  struct Names found = {env, NULL, 0};
  if (napi_get_cb_info(env, info, &count, &value, NULL, NULL) != napi_ok) return NULL;
  text_of(env, value, path, sizeof path);
  if (napi_create_array(env, &found.list) != napi_ok) return NULL;
  each_import(path, add_name, &found);
  return found.list;
}

NAPI_MODULE_INIT() {
  const napi_callback functions[] = {arm, disarm, names};
  const char* const called[] = {"arm", "disarm", "names"};
  for (int i = 0; i < 3; ++i) {
    napi_value function;
    if (napi_create_function(env, called[i], NAPI_AUTO_LENGTH, functions[i], NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, called[i], function) != napi_ok)
      return NULL;
  }
  return exports;
}
