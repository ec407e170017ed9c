import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { NativeAddon } from './addon.js'
import { type Context, currentContext, scopeNumber } from './context.js'
import { CancelledError, ConfigError, DeviceError, nativeError, OutOfMemoryError } from './errors.js'
import { Handle, handleOf, isHandle } from './handle.js'
import { loadNative } from './load.js'

/**
 * Calling native code. Arguments are written as tagged cells into a buffer that both sides see and checked natively
 * against the operator's schema; native/binding/values.h is the other half of this file.
 */

export const native: NativeAddon = loadNative()

/** A complex number. */
export interface Complex {
  readonly re: number
  readonly im: number
}

// Tags and header slots: numbers shared with binding/values.h and binding/environment.h.
const NULL = 0
const NUMBER = 1
const BOOL = 2
const BIGINT = 3
const TENSOR = 4
const LIST = 5
const STRING = 6
const INLINE = 7
const COMPLEX = 8
const OBJECT = 9
const UNDEFINED = 10
const KEYWORD = 11
const SAME = 12
const SLICE = 13
const ELLIPSIS = 14
const DOUBLE = 15
const MODULE = 16

const STATUS = 0
const OPERATOR = 1
const BEGIN = 2
const END = 3
const FLAGS = 4
const SCOPE = 5
const WARNED = 6
const DEVICE = 7
const OVERLOAD = 8
const DONE = 9
const JOB = 11
const HEADER = 16

let buffer = native.callBuffer()
let cells = new Float64Array(buffer)
let integers = new BigInt64Array(buffer)
// Where the next cell goes. Calls nest (a getter in an options object may call an operator), so each starts where the
// enclosing one has got to.
let top = HEADER

function room(doubles: number): void {
  if (top + doubles <= cells.length) return
  let size = cells.length * 2
  while (size < top + doubles) size *= 2
  const grown = native.growBuffer(size)
  if (grown.byteLength < size * 8) throw failure()
  buffer = grown
  cells = new Float64Array(buffer)
  integers = new BigInt64Array(buffer)
}

const strings = new Map<string, number>()
const MAX_STRINGS = 4096

function internString(text: string, most = MAX_STRINGS): number | undefined {
  let id = strings.get(text)
  if (id === undefined && strings.size < most && text.length < 64) {
    id = native.intern(text)
    strings.set(text, id)
  }
  return id
}

function putCell(tag: number, value: number): void {
  if (top + 2 > cells.length) room(2)
  cells[top] = tag
  cells[top + 1] = value
  top += 2
}

function putString(text: string): void {
  // Texts may be as many as there are files; names of options must still find room.
  const id = internString(text, MAX_STRINGS / 2)
  if (id !== undefined) return putCell(STRING, id)
  room(4 + text.length)
  putCell(INLINE, text.length)
  for (let i = 0; i < text.length; i += 1) cells[top + i] = text.charCodeAt(i)
  top += text.length + (text.length & 1)
}

function putBigInt(value: bigint): void {
  if (BigInt.asIntN(64, value) !== value) throw new ConfigError(`${value} does not fit in 64 bits`)
  putCell(BIGINT, 0)
  integers[top - 1] = value
}

/** A range of indices for `Tensor.at`, as Python's `start:stop:step`. */
export class Slice {
  constructor(
    readonly start: number | null = null,
    readonly stop: number | null = null,
    readonly step: number | null = null,
  ) {}
}

/** Marks a number that must stay a floating point one: `double(2)` is 2.0, not the integer 2. */
export class Double {
  constructor(readonly value: number) {}
}

export function put(value: unknown): void {
  switch (typeof value) {
    case 'number':
      return putCell(NUMBER, value)
    case 'object':
      if (value === null) return putCell(NULL, 0)
      if (isHandle(value)) return putCell(value instanceof tensorClass ? TENSOR : OBJECT, handleOf(value))
      return putObject(value)
    case 'boolean':
      return putCell(BOOL, value ? 1 : 0)
    case 'undefined':
      return putCell(UNDEFINED, 0)
    case 'string':
      return putString(value)
    case 'bigint':
      return putBigInt(value)
    default:
      throw new ConfigError(`a ${typeof value} cannot be an argument of an operator`)
  }
}

/** Several arguments. */
export function putAll(...values: unknown[]): void {
  for (const value of values) put(value)
}

function putObject(value: object): void {
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    const list = value as ArrayLike<unknown>
    putCell(LIST, list.length)
    for (let i = 0; i < list.length; i += 1) {
      const item = list[i]
      if (Array.isArray(item))
        throw new ConfigError('no argument of an operator is a list of lists; tensor() makes a tensor of it')
      put(item)
    }
  } else if (value instanceof Slice) {
    putCell(SLICE, 0)
    for (const bound of [value.start, value.stop, value.step]) {
      if (typeof bound === 'object' && bound !== null)
        throw new ConfigError('the bounds of a slice are numbers or null')
      put(bound)
    }
  } else if (value instanceof Double) {
    putCell(DOUBLE, value.value)
  } else if (isComplex(value)) {
    putCell(COMPLEX, value.re)
    putCell(NUMBER, value.im)
  } else {
    throw new ConfigError(
      `an object with the keys ${Object.keys(value).join(', ') || '(none)'} cannot be an argument here; options go last`,
    )
  }
}

export function putEllipsis(): void {
  putCell(ELLIPSIS, 0)
}

export function isComplex(value: object): value is Complex {
  return typeof (value as Complex).re === 'number' && typeof (value as Complex).im === 'number'
}

function isOptions(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || isHandle(value) || Array.isArray(value)) return false
  const prototype = Object.getPrototypeOf(value)
  return (prototype === Object.prototype || prototype === null) && !isComplex(value)
}

const snakeNames = new Map<string, string>()

function snakeCase(name: string): string {
  let snake = snakeNames.get(name)
  if (snake === undefined) {
    snake = /[a-z]/.test(name) ? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : name
    if (snakeNames.size < MAX_STRINGS) snakeNames.set(name, snake)
  }
  return snake
}

function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

function putArguments(args: ArrayLike<unknown>): void {
  const count = args.length
  if (count === 0) return
  for (let i = 0; i < count - 1; i += 1) put(args[i])
  const last = args[count - 1]
  if (typeof last !== 'object' || !isOptions(last)) return put(last)
  for (const name in last) {
    const value = last[name]
    if (value === undefined) continue
    const id = internString(snakeCase(name))
    if (id === undefined) throw new ConfigError(`'${name}' is not an option of any operator`)
    putCell(KEYWORD, id)
    put(value)
  }
}

// Tensors are made here and defined in lib/tensor, which registers its class to avoid an import cycle.
let tensorClass: new (handle: number) => Handle = class extends Handle {}
let generatorClass: new (handle: number) => Handle = tensorClass

export function registerClasses(
  tensor: new (handle: number) => Handle,
  generator: new (handle: number) => Handle,
): void {
  tensorClass = tensor
  generatorClass = generator
}

// Tensors that belong to no scope are freed when JavaScript forgets them.
const forgotten = new FinalizationRegistry<number>((handle) => native.release(handle))

/** Leaves a tensor's lifetime to garbage collection (and `dispose()`). */
export function freeWhenForgotten(tensor: Handle): void {
  forgotten.register(tensor, handleOf(tensor))
}

export function wrapTensor(handle: number, scope: number): Handle {
  const tensor = new tensorClass(handle)
  if (scope === 0) forgotten.register(tensor, handle)
  return tensor
}

/** A native network; lib/models has the class that people see. */
export class ModuleHandle extends Handle {}

let at = 0

/** Decodes the cell at `at` and moves past it. */
function take(scope: number, args: ArrayLike<unknown>, self: Handle | undefined): unknown {
  const tag = cells[at]!
  const value = cells[at + 1]!
  at += 2
  switch (tag) {
    case TENSOR:
      return wrapTensor(value, scope)
    case SAME:
      return sameArgument(value, args, self)
    case NULL:
      return null
    case UNDEFINED:
      return undefined
    case NUMBER:
    case DOUBLE:
      return value
    case BOOL:
      return value !== 0
    case BIGINT:
      return integers[at - 1]
    case COMPLEX: {
      const im = cells[at + 1]!
      at += 2
      return { re: value, im }
    }
    case INLINE: {
      let text = ''
      for (let i = 0; i < value; i += 1) text += String.fromCharCode(cells[at + i]!)
      at += value + (value & 1)
      return text
    }
    case OBJECT: {
      const object = new generatorClass(value)
      forgotten.register(object, value)
      return object
    }
    case MODULE: {
      const module = new ModuleHandle(value)
      forgotten.register(module, value)
      return module
    }
    case LIST: {
      const list: unknown[] = new Array(value)
      for (let i = 0; i < value; i += 1) list[i] = take(scope, args, self)
      return list
    }
    default:
      throw new ConfigError(`native code returned an unknown value (tag ${tag})`)
  }
}

function sameArgument(handle: number, args: ArrayLike<unknown>, self: Handle | undefined): unknown {
  if (self !== undefined && handleOf(self) === handle) return self
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i]
    if (typeof arg !== 'object' || arg === null) continue
    if (isHandle(arg)) {
      if (handleOf(arg) === handle) return arg
    } else if (isOptions(arg)) {
      for (const value of Object.values(arg)) {
        if (typeof value === 'object' && value !== null && isHandle(value) && handleOf(value) === handle) return value
      }
    }
  }
  return null
}

/** Which of driver, libtorch build or addon variant stands between us and CUDA; null when it is there. */
export function noCudaReason(): string | null {
  if (native.cudaDeviceCount() > 0) return null
  if (native.versions().variant !== 'cuda') {
    return 'this build of voxtorch is the CPU variant; build the other with `npx voxtorch install --cuda`'
  }
  if (native.hasCuda() === 0) return 'the loaded libtorch is a CPU build; set LIBTORCH to a CUDA build'
  return 'libtorch finds no NVIDIA device; `npx voxtorch doctor` tells what it looked for'
}

function failure(): Error {
  const error = native.takeError()
  if (error.kind === 10) return takeCallbackError(error.jsError)
  const result = nativeError(error)
  if (!(result instanceof DeviceError) || !/cuda/i.test(result.message)) return result
  // libtorch's own sentence names its compile flags.
  const reason = noCudaReason()
  return reason === null
    ? result
    : new DeviceError(`${error.op.replace(/^\w+::/, '')}: CUDA was asked for, but ${reason}`, { op: error.op })
}

/** After a native call: throws its error, or makes room for a result that did not fit. */
function checkStatus(): void {
  if (cells[STATUS] === 2) {
    const base = cells[BEGIN]!
    const before = top
    top = base
    try {
      room(cells[JOB]! + 2)
    } finally {
      top = before
    }
    native.writeStashed()
    if ((cells[STATUS] as number) === 0) return
  }
  throw failure()
}

function emitWarnings(): void {
  for (const warning of native.takeWarnings()) process.emitWarning(warning, 'LibtorchWarning')
}

function enter(base: number, context: Context): number {
  const scope = scopeNumber(context)
  cells[BEGIN] = base
  cells[END] = top
  cells[FLAGS] = context.flags
  cells[SCOPE] = scope
  cells[DEVICE] = context.device
  return scope
}

/** An ATen or voxtorch operator, looked up once. */
export class Operator {
  readonly #names: (string[] | undefined)[] = []
  readonly #id: number

  constructor(readonly name: string) {
    this.#id = native.resolve(name)
    if (cells[STATUS] !== 0) {
      const error = failure()
      const versions = native.versions()
      error.message = `${error.message} (voxtorch was built for ${versions.built})`
      throw error
    }
  }

  /** Runs on this thread, now. */
  call(self: Handle | undefined, args: ArrayLike<unknown>): unknown {
    const base = top
    let scope: number
    // One or two tensors: encoding cannot run user code here, so nothing has to be guarded.
    const second = args[0]
    if (
      self !== undefined &&
      base + 4 <= cells.length &&
      (args.length === 0 || (args.length === 1 && second instanceof tensorClass && isHandle(second)))
    ) {
      cells[base] = TENSOR
      cells[base + 1] = handleOf(self)
      if (args.length === 1) {
        cells[base + 2] = TENSOR
        cells[base + 3] = handleOf(second as Handle)
      }
      const context = currentContext()
      scope = scopeNumber(context)
      cells[OPERATOR] = this.#id
      cells[BEGIN] = base
      cells[END] = base + 2 + 2 * args.length
      cells[FLAGS] = context.flags
      cells[SCOPE] = scope
      cells[DEVICE] = context.device
      native.call()
      if (cells[STATUS] === 0 && cells[WARNED] === 0 && cells[base] === TENSOR)
        return wrapTensor(cells[base + 1]!, scope)
      return this.#result(base, scope, args, self)
    }
    try {
      if (self !== undefined) putCell(TENSOR, handleOf(self))
      putArguments(args)
      scope = enter(base, currentContext())
    } finally {
      top = base
    }
    cells[OPERATOR] = this.#id
    native.call()
    return this.#result(base, scope, args, self)
  }

  #result(base: number, scope: number, args: ArrayLike<unknown>, self: Handle | undefined): unknown {
    if (cells[WARNED] !== 0) emitWarnings()
    if (cells[STATUS] !== 0) checkStatus()
    const tag = cells[base]
    if (tag === TENSOR) return wrapTensor(cells[base + 1]!, scope)
    at = base
    const result = take(scope, args, self)
    return tag === LIST ? this.#named(result as unknown[], cells[OVERLOAD]!) : result
  }

  /** Runs on the executor, in the order of queueing. */
  callQueued(self: Handle | undefined, args: ArrayLike<unknown>): Promise<unknown> {
    return queue(
      () => {
        if (self !== undefined) putCell(TENSOR, handleOf(self))
        putArguments(args)
      },
      () => {
        cells[OPERATOR] = this.#id
        native.callQueued()
        const overload = cells[OVERLOAD]!
        return (result) => (Array.isArray(result) ? this.#named(result, overload) : result)
      },
      args,
      self,
    )
  }

  /** Results with names become an object, as PyTorch's named tuples. */
  #named(values: unknown[], overload: number): unknown {
    let names = this.#names[overload]
    if (names === undefined) {
      names = native.returnNames(this.#id, overload).map(camelCase)
      this.#names[overload] = names
    }
    if (names.length !== values.length || names.length === 0) return values
    const result: Record<string, unknown> = {}
    for (let i = 0; i < names.length; i += 1) result[names[i]!] = values[i]
    return result
  }
}

interface Pending {
  resolve(value: unknown): void
  reject(error: unknown): void
  finish(result: unknown): unknown
  context: Context
  args: ArrayLike<unknown>
  self: Handle | undefined
  /** Holds the stack of the code that queued the job: a failure should point there. */
  site: Error
}

const pending = new Map<number, Pending>()
/** Its reactions run after the code that is running now, like those of any other job. */
const queued = Promise.resolve()

function queue(
  encode: () => void,
  submit: () => (result: unknown) => unknown,
  args: ArrayLike<unknown>,
  self: Handle | undefined,
): Promise<unknown> {
  const context = currentContext()
  const base = top
  try {
    encode()
    enter(base, context)
  } catch (error) {
    top = base
    return Promise.reject(error)
  }
  top = base
  const finish = submit()
  if (cells[STATUS] !== 0) return Promise.reject(failure())
  const job = cells[JOB]!
  if (cells[DONE] === 1) queued.then(() => settle(job))
  // Every job pays for its stack, so it is short: the queueing function, the one that called it and some of its callers.
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = Math.min(limit, 6)
  const site = new Error()
  Error.stackTraceLimit = limit
  return new Promise((resolve, reject) => {
    pending.set(job, { resolve, reject, finish, context, args, self, site })
  })
}

/** Queues one of the addon's own jobs: cells in, a promise of the decoded result out. */
export function queueNative(submit: () => void, ...values: unknown[]): Promise<unknown> {
  return queue(
    () => {
      for (const value of values) put(value)
    },
    () => {
      submit()
      return (result) => result
    },
    values,
    undefined,
  )
}

/** Calls one of the addon's own functions: cells in, the decoded result out (undefined where it writes none). */
export function callNative(run: () => void, write: () => void, read: boolean): unknown {
  const base = top
  let scope: number
  try {
    write()
    scope = enter(base, currentContext())
  } finally {
    top = base
  }
  // Functions that call back into JavaScript must not overwrite these arguments.
  const end = cells[END]!
  top = end
  try {
    run()
  } finally {
    top = base
  }
  if (cells[WARNED] !== 0) emitWarnings()
  if (cells[STATUS] !== 0) checkStatus()
  if (!read) return undefined
  at = base
  return take(scope, [], undefined)
}

/** Reads numbers that a native function left in the buffer. */
export function readNumbers(run: () => void, write: () => void): Float64Array {
  const base = top
  try {
    write()
    enter(base, currentContext())
  } finally {
    top = base
  }
  run()
  if (cells[STATUS] !== 0) throw failure()
  return cells.subarray(base)
}

/**
 * Memory that nobody needs any more is often only waiting for the garbage collector: collect, let finalisations run, and
 * try once more before giving up.
 */
function retryWithMemory(job: number): void {
  const collect = (globalThis as { gc?: () => void }).gc ?? exposedGc()
  collect?.()
  setImmediate(() => {
    if (native.retry(job) === 0) finish(job)
  })
}

function exposedGc(): (() => void) | undefined {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as (() => void) | undefined
}

function settle(job: number): void {
  if (!pending.has(job)) return
  if (native.ranOutOfMemory(job) !== 0) retryWithMemory(job)
  else finish(job)
}

function finish(job: number): void {
  const entry = pending.get(job)
  if (entry === undefined) return
  pending.delete(job)
  const base = top
  const scope = enter(base, entry.context)
  native.settle(job)
  if (cells[WARNED] !== 0) emitWarnings()
  if (cells[STATUS] === 2) checkStatus()
  if (cells[STATUS] !== 0) {
    const error = failure()
    if (error instanceof OutOfMemoryError) {
      const { liveTensors, liveBytes } = native.memory()
      error.message += `; JavaScript holds ${liveTensors} tensors with ${liveBytes} bytes of CPU memory`
    }
    if ('op' in error) {
      error.stack = `${error.name}: ${error.message}\n${entry.site.stack?.split('\n').slice(1).join('\n') ?? ''}`
    }
    entry.reject(error)
    return
  }
  try {
    at = base
    entry.resolve(entry.finish(take(scope, entry.args, entry.self)))
  } catch (error) {
    entry.reject(error)
  }
}

/** A JavaScript function that native code may call: custom gradients and hooks. */
export type Callback = (kind: number, values: unknown[], flags: number, scope: number) => unknown[]

const callbacks = new Map<number, Callback>()
let nextCallback = 1

export function registerCallback(callback: Callback): number {
  const id = nextCallback
  nextCallback += 1
  callbacks.set(id, callback)
  return id
}

export function unregisterCallback(id: number): void {
  callbacks.delete(id)
}

// An exception cannot travel through native frames; its number does.
const callbackErrors = new Map<number, unknown>()
let nextError = 2

function takeCallbackError(id: number): Error {
  const error = callbackErrors.get(id)
  callbackErrors.delete(id)
  return error instanceof Error ? error : new CancelledError(`a callback threw ${String(error)}`, { cause: error })
}

const argumentCounts = [0, 2, 1] // forward, backward, hook

/** Runs a callback on the arguments at `start`, writes its results there and returns where they end. */
function dispatch(id: number, kind: number, start: number, flags: number): number {
  const before = top
  const beforeAt = at
  const scope = cells[SCOPE]!
  try {
    const callback = callbacks.get(id)
    if (callback === undefined) throw new CancelledError('a callback was used after it was removed')
    at = start
    const values: unknown[] = []
    for (let i = 0; i < argumentCounts[kind]!; i += 1) values.push(take(scope, [], undefined))
    // What the callback itself calls must not land on cells that native code still reads below `start`.
    top = start
    const results = callback(kind, values, flags, scope)
    top = start
    for (const value of results) put(value)
    return top
  } catch (error) {
    const number = nextError
    nextError += 1
    callbackErrors.set(number, error)
    return -number
  } finally {
    top = before
    at = beforeAt
  }
}

native.setDispatchers(settle, dispatch, unregisterCallback)

const operators = new Map<string, Operator>()

export function operator(name: string): Operator {
  let found = operators.get(name)
  if (found === undefined) {
    found = new Operator(name)
    operators.set(name, found)
  }
  return found
}

/** Any operator by its full name, such as `aten::_fused_adamw_`, as a function that runs now. */
// biome-ignore lint/suspicious/noExplicitAny: the schema is checked natively; public operators are typed by lib/native/generated.
export function op(name: string): (...args: any[]) => any {
  let found: Operator | undefined
  return (...args) => (found ??= operator(name)).call(undefined, args)
}

/** The same as a job on the executor. */
// biome-ignore lint/suspicious/noExplicitAny: as above.
export function opAsync(name: string): (...args: any[]) => Promise<any> {
  let found: Operator | undefined
  return (...args) => (found ??= operator(name)).callQueued(undefined, args)
}
