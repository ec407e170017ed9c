import {
  closeSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { hostname } from 'node:os'

/** A holder touches its lock more often than this, so an older one was left behind. In milliseconds. */
const STALE = 60_000
const BEAT = 10_000

/** Who has a lock. */
export interface Holder {
  host: string
  pid: number
  /** What the holder says it does. */
  name: string
}

interface Written extends Holder {
  /** Of its processes: the same number means another process in another container. */
  namespace: string
  /** When the process began, as the system counts: its number may be another's by now. */
  began: string
  id: string
}

export interface LockOptions {
  name: string
  /** Whether a process of this machine that lives, but has not touched the lock for a minute, loses it. Default false. */
  fromTheLiving?: boolean
}

/**
 * Takes a lock for this process, or tells who has it. The lock is a file with the holder's name: Node has no flock. One
 * whose process is gone, by SIGKILL too, is taken over at once, and one of another machine that shares the folder a minute
 * after its last sign of life.
 * @throws what the file system throws, as it is
 */
export function takeLock(path: string, { name, fromTheLiving = false }: LockOptions): Lock | Holder {
  const [host, pid, id] = [hostname(), process.pid, Math.random().toString(36).slice(2)]
  const me: Written = { host, pid, name, namespace: namespace(), began: statOf(pid)?.began ?? '', id }
  const text = JSON.stringify(me)
  for (;;) {
    if (created(path, text)) return new Lock(path, text)
    const found = contents(path)
    if (found === undefined) continue
    const holder = parsed(found)
    if (!isLeft(path, holder, fromTheLiving)) return holder ?? { host: '', pid: 0, name: '' }
    remove(path, found)
  }
}

export class Lock {
  readonly #path: string
  readonly #text: string
  readonly #beat: NodeJS.Timeout

  constructor(path: string, text: string) {
    this.#path = path
    this.#text = text
    this.#beat = setInterval(() => {
      try {
        utimesSync(path, new Date(), new Date())
      } catch {
        // It is not there any more, and then there is nothing to keep.
      }
    }, BEAT).unref()
  }

  /** Does nothing a second time, or where somebody else has taken it over. */
  release(): void {
    clearInterval(this.#beat)
    try {
      if (contents(this.#path) === this.#text) rmSync(this.#path, { force: true })
    } catch {
      // A lock that cannot be removed is one that a process which has ended leaves behind.
    }
  }
}

function created(path: string, text: string): boolean {
  let file: number
  try {
    file = openSync(path, 'wx')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
  try {
    writeSync(file, text)
  } catch (error) {
    rmSync(path, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
  return true
}

function isLeft(path: string, holder: Written | undefined, fromTheLiving: boolean): boolean {
  const isOurs = holder !== undefined && holder.host === hostname() && holder.namespace === namespace()
  if (isOurs && isDead(holder)) return true
  if (isOurs && !fromTheLiving) return false
  return Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) > STALE
}

function isDead({ pid, began }: Written): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // Another user's process is alive too.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true
  }
  const now = statOf(pid)
  return now !== undefined && (now.state === 'Z' || (began !== '' && now.began !== began))
}

/** Removes a lock, of which only one of several who conclude the same can be the one. */
function remove(path: string, found: string): void {
  const aside = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`
  try {
    renameSync(path, aside)
  } catch {
    return
  }
  // Somebody was quicker, and this is already the next holder's: give it back.
  if (contents(aside) !== found) renameSync(aside, path)
  rmSync(aside, { force: true })
}

function parsed(text: string): Written | undefined {
  try {
    const { host, pid, name = '', namespace = '', began = '', id } = JSON.parse(text) as Partial<Written>
    const words = [host, name, namespace, began, id]
    if (!Number.isSafeInteger(pid) || words.some((word) => typeof word !== 'string')) return undefined
    return { host, pid, name, namespace, began, id } as Written
  } catch {
    return undefined
  }
}

/** State and start of a process, where the system tells; proc(5). */
function statOf(pid: number): { state: string; began: string } | undefined {
  try {
    // A command's name may have blanks and brackets in it.
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state: fields[0] ?? '', began: fields[19] ?? '' }
  } catch {
    return undefined
  }
}

function namespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid')
  } catch {
    return ''
  }
}

/** Undefined where there is none. */
function contents(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
