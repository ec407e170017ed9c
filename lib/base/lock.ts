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

/** Milliseconds after which a lock is stale; a live holder touches its lock more often. */
const STALE = 60_000
const BEAT = 10_000

/** Process that holds a lock. */
export interface Holder {
  host: string
  pid: number
  /** Name of the holder's task. */
  name: string
}

interface Written extends Holder {
  /** PID namespace: the same `pid` is another process in another container. */
  namespace: string
  /** Start time of the process in the system's ticks, since a PID may be reused. */
  began: string
  id: string
}

export interface LockOptions {
  name: string
  /** Whether to take a stale lock from a live process of this machine. Default false. */
  fromTheLiving?: boolean
}

/**
 * Take a lock for this process, or return its holder. The lock is a file that names the holder, since Node has no flock. A
 * lock whose process has ended, by SIGKILL too, is taken over at once. A lock of another machine on the same network folder
 * is taken over a minute after it was last touched.
 * @throws the file system's errors unchanged
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
        // The lock file is gone, so there is nothing to touch.
      }
    }, BEAT).unref()
  }

  /** Remove the lock. Does nothing if it was already released or another process has taken it over. */
  release(): void {
    clearInterval(this.#beat)
    try {
      if (contents(this.#path) === this.#text) rmSync(this.#path, { force: true })
    } catch {
      // A lock that cannot be removed becomes stale when this process ends.
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
    // EPERM: the process of another user, which is alive.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true
  }
  const now = statOf(pid)
  return now !== undefined && (now.state === 'Z' || (began !== '' && now.began !== began))
}

/** Remove a stale lock. Of several processes that try at once, only one succeeds. */
function remove(path: string, found: string): void {
  const aside = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`
  try {
    renameSync(path, aside)
  } catch {
    return
  }
  // Another process was faster, and this is already the next holder's lock: restore it.
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

/** Return the state and start time of a process from /proc, see proc(5); undefined elsewhere. */
function statOf(pid: number): { state: string; began: string } | undefined {
  try {
    // The command name may contain spaces and parentheses.
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

/** Read a file; undefined if it does not exist. */
function contents(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
