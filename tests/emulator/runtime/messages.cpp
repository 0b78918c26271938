// Errors and warnings of a launch, and the device's printf.
#include <cstdarg>
#include <cstdio>

#include "state.h"

// A warning is kept once for each instruction and kind, with the number of times: a loop does not hide
// others.
struct Warning {
  const Site* site;
  const char* format;
  std::string text;
  uint64_t times;
};
static const size_t WARNINGS_KEPT = 50;
static std::string errors;
static std::vector<Warning> warnings;
static uint64_t warnings_dropped;

extern "C" __attribute__((visibility("default"))) const char* emulator_error() { return errors.c_str(); }
extern "C" __attribute__((visibility("default"))) const char* emulator_warnings() {
  static std::string text;
  text.clear();
  for (const Warning& w : warnings)
    text += w.text + (w.times > 1 ? " (first of " + std::to_string(w.times) + ")\n" : "\n");
  if (warnings_dropped) text += std::to_string(warnings_dropped) + " warnings of other instructions\n";
  return text.c_str();
}

void clear_messages() {
  errors.clear();
  warnings.clear();
  warnings_dropped = 0;
}

void add_error(const std::string& text) {
  if (errors.empty()) errors = text;
}

static std::string formatted(const char* format, va_list arguments) {
  char text[600];
  vsnprintf(text, sizeof text, format, arguments);
  return text;
}

std::string where(Thread* t, const Site& site) {
  char text[500];
  snprintf(text, sizeof text, "block (%u, %u, %u), thread (%u, %u, %u), line %d of the function: `%s`",
           t->block_x, t->block_y, t->block_z, t->x, t->y, t->z, site.line, site.text);
  return text;
}

void warn(Thread* t, const Site& site, const char* format, ...) {
  for (Warning& w : warnings) {
    if (w.site != &site || w.format != format) continue;
    w.times++;
    return;
  }
  if (warnings.size() == WARNINGS_KEPT) {
    warnings_dropped++;
    return;
  }
  va_list arguments;
  va_start(arguments, format);
  warnings.push_back({&site, format, formatted(format, arguments) + "; " + where(t, site), 1});
  va_end(arguments);
}

void fail(Thread* t, const Site& site, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  add_error(formatted(format, arguments) + "; " + where(t, site));
  va_end(arguments);
  state_of(t).failed = true;
  yield(t);  // the scheduler abandons the launch
  __builtin_unreachable();
}

void warn_division_by_zero(Thread* t, const Site& site) {
  warn(t, site, "integer division by zero (its result is unspecified)");
}

// `values` holds the arguments as the C ABI promotes them, each aligned to its size.
int device_printf(const char* format, const uint8_t* values) {
  size_t offset = 0;
  auto next = [&](size_t size) {
    offset = (offset + size - 1) / size * size;
    uint64_t v = 0;
    memcpy(&v, values + offset, size);
    offset += size;
    return v;
  };
  std::string out;
  int count = 0;
  while (*format) {
    if (*format != '%') {
      out += *format++;
      continue;
    }
    if (*++format == '%') {
      out += *format++;
      continue;
    }
    std::string spec = "%";
    for (; *format && !strchr("diouxXeEfFgGaAcsp", *format); format++)
      spec += *format == '*' ? std::to_string((int)next(4)) : std::string(1, *format);
    const char conversion = *format ? *format++ : 'd';
    const bool wide = spec.find_first_of("lzjt") != std::string::npos;
    spec += conversion;
    char text[256];
    if (strchr("eEfFgGaA", conversion))
      snprintf(text, sizeof text, spec.c_str(), as_f64(next(8)));
    else if (conversion == 's')
      snprintf(text, sizeof text, spec.c_str(), (const char*)next(8));
    else if (conversion == 'p' || wide)
      snprintf(text, sizeof text, spec.c_str(), next(8));
    else
      snprintf(text, sizeof text, spec.c_str(), (int)next(4));
    out += text;
    count++;
  }
  fputs(out.c_str(), stdout);
  fflush(stdout);
  return count;
}
