const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const months = 'January February March April May June July August September October November December'.split(' ')

/**
 * Python's `datetime.strftime` of a local time without a time zone, in the C locale of glibc: all directives, the flags `-`, `_`, `0`,
 * `^` and `#`, and widths. Unknown directives stay in the text.
 */
export function strftime(date: Date, format: string): string {
  return format.replace(
    /%([-_0^#]*)(\d{0,3})([EO]?)([A-Za-z%+])/g,
    (whole, flags: string, width: string, _alternative, letter: string) => {
      // biome-ignore format: one line
      const made = directive(date, letter)
      if (made === undefined) return whole
      const [value, size, fill] = made
      let text = String(value)
      if (flags.includes('^')) text = text.toUpperCase()
      if (flags.includes('#')) text = letter === 'p' || letter === 'Z' ? text.toLowerCase() : text.toUpperCase()
      const flag = /[-_0](?=[^-_0]*$)/.exec(flags)?.[0]
      const padding = flag === '_' ? ' ' : flag === '0' ? '0' : fill
      if (flag === '-' && width === '') return text
      return text.padStart(width === '' ? size : Number(width), padding)
    },
  )
}

/** Return the value of a directive, with its minimum width and padding. */
function directive(date: Date, letter: string): [string | number, number, ' ' | '0'] | undefined {
  const text = (value: string): [string, number, ' '] => [value, 0, ' ']
  const number = (value: number, size = 2, fill: ' ' | '0' = '0'): [number, number, ' ' | '0'] => [value, size, fill]
  const [year, month, day] = [date.getFullYear(), date.getMonth(), date.getDate()]
  const [hour, weekday] = [date.getHours(), date.getDay()]
  const yearDay = Math.round((Date.UTC(year, month, day) - Date.UTC(year, 0, 1)) / 86_400_000)
  switch (letter) {
    case 'a':
      return text(days[weekday]!.slice(0, 3))
    case 'A':
      return text(days[weekday]!)
    case 'b':
    case 'h':
      return text(months[month]!.slice(0, 3))
    case 'B':
      return text(months[month]!)
    case 'c':
      return text(strftime(date, '%a %b %e %H:%M:%S %Y'))
    case 'C':
      return number(Math.floor(year / 100))
    case 'd':
      return number(day)
    case 'D':
    case 'x':
      return text(strftime(date, '%m/%d/%y'))
    case 'e':
      return number(day, 2, ' ')
    case 'f':
      return number(date.getMilliseconds() * 1000, 6)
    case 'F':
      return text(strftime(date, '%Y-%m-%d'))
    case 'g':
      return number(isoWeek(date)[0] % 100)
    case 'G':
      return number(isoWeek(date)[0], 1)
    case 'H':
      return number(hour)
    case 'I':
      return number(hour % 12 || 12)
    case 'j':
      return number(yearDay + 1, 3)
    case 'k':
      return number(hour, 2, ' ')
    case 'l':
      return number(hour % 12 || 12, 2, ' ')
    case 'm':
      return number(month + 1)
    case 'M':
      return number(date.getMinutes())
    case 'n':
      return text('\n')
    case 'p':
      return text(hour < 12 ? 'AM' : 'PM')
    case 'P':
      return text(hour < 12 ? 'am' : 'pm')
    case 'r':
      return text(strftime(date, '%I:%M:%S %p'))
    case 'R':
      return text(strftime(date, '%H:%M'))
    case 's':
      return number(Math.floor(date.getTime() / 1000), 1)
    case 'S':
      return number(date.getSeconds())
    case 't':
      return text('\t')
    case 'T':
    case 'X':
      return text(strftime(date, '%H:%M:%S'))
    case 'u':
      return number(weekday || 7, 1)
    case 'U':
      return number(Math.floor((yearDay + 7 - weekday) / 7))
    case 'V':
      return number(isoWeek(date)[1])
    case 'w':
      return number(weekday, 1)
    case 'W':
      return number(Math.floor((yearDay + 7 - ((weekday + 6) % 7)) / 7))
    case 'y':
      return number(year % 100)
    case 'Y':
      return number(year, 1)
    case 'z':
    case 'Z':
      return text('')
    case '%':
      return text('%')
    default:
      return undefined
  }
}

/** Return the ISO 8601 year and week: a week belongs to the year of its Thursday. */
function isoWeek(date: Date): [number, number] {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 4 - (date.getDay() || 7))
  const first = Date.UTC(thursday.getFullYear(), 0, 1)
  const at = Date.UTC(thursday.getFullYear(), thursday.getMonth(), thursday.getDate())
  return [thursday.getFullYear(), Math.floor((at - first) / 86_400_000 / 7) + 1]
}
