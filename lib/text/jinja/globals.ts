import { bound } from './arguments.js'
import { JinjaError, LIMITS, limit, typeError, unsupported, valueError, type Work } from './errors.js'
import type { Interpreter } from './interpreter.js'
import { dictOf, setAttribute } from './objects.js'
import { strftime } from './strftime.js'
import {
  type CallArguments,
  Callable,
  Dict,
  Instance,
  isInteger,
  isText,
  Namespace,
  plainNumber,
  Range,
  rawText,
  str,
  Tuple,
  toList,
  typeName,
  Undefined,
  type Value,
} from './values.js'

function range(callArgs: CallArguments): Value {
  const { args, kwargs } = callArgs
  if (kwargs.size > 0) throw typeError('range() takes no keyword arguments')
  if (args.length < 1 || args.length > 3) throw typeError(`range expected 1 to 3 arguments, got ${args.length}`)
  const numbers = args.map((value) => {
    if (value instanceof Undefined) value.fail()
    if (!isInteger(value)) throw typeError(`'${typeName(value)}' object cannot be interpreted as an integer`)
    return plainNumber(value) as bigint
  })
  const [start, stop, step = 1n] = numbers.length === 1 ? [0n, numbers[0]!] : numbers
  if (step === 0n) throw valueError('range() arg 3 must not be zero')
  return new Range(start!, stop!, step)
}

class Cycler extends Instance {
  override readonly typeName = 'Cycler'
  #at = 0

  constructor(readonly items: readonly Value[]) {
    super()
    if (items.length === 0) throw new JinjaError('RuntimeError', 'at least one item has to be provided')
  }

  override text(): string {
    return '<jinja2.utils.Cycler object at 0x7f0000000000>'
  }

  override attribute(name: string): Value | undefined {
    if (name === 'current') return this.items[this.#at]
    if (name === 'items') return new Tuple(this.items)
    if (name === 'pos') return BigInt(this.#at)
    if (name === 'reset')
      return new Callable('<bound method Cycler.reset>', () => {
        this.#at = 0
        return null
      })
    if (name !== 'next') return undefined
    return new Callable('<bound method Cycler.next>', () => {
      const item = this.items[this.#at]!
      this.#at = (this.#at + 1) % this.items.length
      return item
    })
  }
}

class Joiner extends Instance {
  override readonly typeName = 'Joiner'
  #used = false

  constructor(readonly separator: Value) {
    super()
  }

  override text(): string {
    return '<jinja2.utils.Joiner object at 0x7f0000000000>'
  }

  override attribute(name: string): Value | undefined {
    return name === 'sep' ? this.separator : name === 'used' ? this.#used : undefined
  }

  override call(): Value {
    const text = this.#used ? this.separator : ''
    this.#used = true
    return text
  }
}

/** jinja2's global `dict`. */
class DictType extends Instance {
  override readonly typeName = 'TemplateDict'

  constructor(readonly work: Work) {
    super()
  }

  override text(): string {
    return '<TemplateDict object at 0x7f0000000000>'
  }

  override attribute(name: string): Value | undefined {
    if (name !== 'fromkeys') return undefined
    return new Callable('<bound method TemplateDict.fromkeys>', ({ args }) => {
      const [keys, value = null] = args
      const dict = new Dict()
      for (const key of toList(keys ?? [], this.work)) dict.set(key, value)
      return dict
    })
  }

  override call(callArgs: CallArguments): Value {
    return dictOf(callArgs, this.work)
  }
}

/** jinja2's global functions, with transformers' `raise_exception` and `strftime_now`. */
export function globals({ work, now }: Interpreter): [string, Value][] {
  return [
    ['range', new Callable('<function safe_range at 0x7f0000000000>', range)],
    ['dict', new DictType(work)],
    [
      'lipsum',
      new Callable('<function generate_lorem_ipsum at 0x7f0000000000>', () => {
        throw unsupported('lipsum')
      }),
    ],
    ['cycler', new Callable("<class 'jinja2.utils.Cycler'>", ({ args }) => new Cycler(args))],
    [
      'joiner',
      new Callable("<class 'jinja2.utils.Joiner'>", (callArgs) => {
        const [separator = ', '] = bound('joiner', callArgs, 0, 'sep')
        return new Joiner(separator)
      }),
    ],
    [
      'namespace',
      new Callable('<class TemplateNamespace>', (callArgs) => {
        const namespace = new Namespace()
        for (const [name, value] of dictOf(callArgs, work).entries()) {
          if (!isText(name)) throw unsupported('a namespace attribute whose name is not a string')
          setAttribute(namespace, rawText(name), value)
        }
        return namespace
      }),
    ],
    [
      'raise_exception',
      new Callable('<function raise_exception at 0x7f0000000000>', (callArgs) => {
        const [message] = bound('raise_exception', callArgs, 1, 'message')
        throw new JinjaError(
          'TemplateError',
          str(message!, work),
          undefined,
          isText(message!) ? rawText(message) : message,
        )
      }),
    ],
    [
      'strftime_now',
      new Callable('<function strftime_now at 0x7f0000000000>', (callArgs) => {
        const [format] = bound('strftime_now', callArgs, 1, 'format')
        if (!isText(format!)) throw typeError(`strftime() argument 1 must be str, not ${typeName(format!)}`)
        const text = rawText(format)
        // A directive outputs up to 999 characters.
        if (text.length > LIMITS.date) throw limit(`writes a date with a format of more than ${LIMITS.date} characters`)
        work.text(text.length * LIMITS.date)
        return strftime(now(), text)
      }),
    ],
  ]
}
