import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type Server } from 'node:net'
import { availableParallelism, constants, networkInterfaces } from 'node:os'
import { extname, resolve } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { pathToFileURL } from 'node:url'

// `voxtorch launch`: starts the processes that train together on one machine, and ends all when one dies.

/** How long processes may take to end after a signal, for instance to save. */
const GRACE = 10_000
/** How long the others of a failed rank have to end by themselves, in milliseconds. */
const OWN_END = 2_000

export interface LaunchOptions {
  processes: number
  script: string
  /** The script's own arguments. */
  values: string[]
}

/** Reads the command line behind `launch`; throws TypeError for what cannot be understood. */
export function parseLaunch(values: string[]): LaunchOptions {
  const usage = 'Usage: voxtorch launch --nproc N script.js [arguments].'
  let processes: number | undefined
  let at = 0
  for (; at < values.length && values[at]?.startsWith('-'); at++) {
    const [, name, inline] = /^(--[a-z-]+)(?:=(.*))?$/.exec(values[at] as string) ?? []
    if (name !== '--nproc' && name !== '--nproc-per-node') {
      throw new TypeError(`Unknown option "${values[at]}" before the script. ${usage}`)
    }
    const count = inline ?? values[++at]
    if (!count || !/^[1-9]\d{0,3}$/.test(count)) {
      throw new TypeError(`${name} needs a number of processes, not "${count ?? ''}". ${usage}`)
    }
    processes = Number(count)
  }
  const script = values[at]
  if (processes === undefined) throw new TypeError(`--nproc is missing. ${usage}`)
  if (script === undefined) throw new TypeError(`There is no script to run. ${usage}`)
  if (!existsSync(script)) throw new TypeError(`There is no file "${script}".`)
  return { processes, script, values: values.slice(at + 1) }
}

/** Runs a script in several processes and returns the exit code: 0, or that of the first process that failed. */
export async function launch(values: string[]): Promise<number> {
  const { processes, script, values: own } = parseLaunch(values)
  const node = [...process.execArgv, ...loaderFor(script), script, ...own]
  const server = await listen()
  const { port } = server.address() as { port: number }
  const children = Array.from({ length: processes }, (_, rank) =>
    spawn(process.execPath, node, {
      env: environmentOf(rank, processes, port),
      // Rank 0 gets the listening socket itself, so no other program can take the port in between.
      stdio: [rank === 0 ? 'inherit' : 'ignore', 'pipe', 'pipe', ...(rank === 0 ? [descriptorOf(server)] : [])],
    }),
  )
  server.close()
  for (const [rank, child] of children.entries()) {
    const prefix = processes > 1 ? `[${rank}] ` : ''
    forward(child.stdout as Readable, process.stdout, prefix)
    forward(child.stderr as Readable, process.stderr, prefix)
  }
  return await supervise(children)
}

/** Waits for all; the first that fails takes the others with it. */
async function supervise(children: ChildProcess[]): Promise<number> {
  let result = 0
  let timer: NodeJS.Timeout | undefined
  let ownEnd: NodeJS.Timeout | undefined
  const end = (signal: NodeJS.Signals) => {
    for (const child of children) child.kill(signal)
    timer ??= setTimeout(() => {
      for (const child of children) child.kill('SIGKILL')
    }, GRACE)
  }
  const onSignal = (signal: NodeJS.Signals) => {
    result ||= 128 + constants.signals[signal]
    // A terminal has sent ^C to the whole family already.
    if (signal === 'SIGINT' && process.stdin.isTTY) return
    end(signal)
  }
  const signals: NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']
  for (const signal of signals) process.on(signal, onSignal)
  const ends = children.map(
    (child, rank) =>
      new Promise<void>((finished) => {
        const failed = (how: string, code: number) => {
          if (result === 0) {
            result = code
            console.error(`voxtorch launch: rank ${rank} (process ${child.pid ?? '?'}) ${how}; ending the other ranks`)
            // Most hear of it by themselves, and say more than a signal would let them.
            ownEnd = setTimeout(end, OWN_END, 'SIGTERM')
          }
          finished()
        }
        child.on('error', (error) => failed(`could not be started: ${error.message}`, 1))
        child.on('close', (code, signal) => {
          if (signal) failed(`was ended by ${signal}`, 128 + constants.signals[signal])
          else if (code) failed(`ended with code ${code}`, code)
          else finished()
        })
      }),
  )
  await Promise.all(ends)
  clearTimeout(timer)
  clearTimeout(ownEnd)
  for (const signal of signals) process.off(signal, onSignal)
  return result
}

function environmentOf(rank: number, processes: number, port: number): NodeJS.ProcessEnv {
  const threads = Math.max(1, Math.floor(availableParallelism() / processes))
  return {
    // One machine: the loopback needs no name that resolves and no firewall that lets through.
    ...(networkInterfaces().lo && { GLOO_SOCKET_IFNAME: 'lo' }),
    OMP_NUM_THREADS: String(threads),
    ...process.env,
    RANK: String(rank),
    LOCAL_RANK: String(rank),
    WORLD_SIZE: String(processes),
    LOCAL_WORLD_SIZE: String(processes),
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(port),
    // Ranks look whether the launcher still lives: see native/core/launcher.cc.
    VOXTORCH_LAUNCHER_PID: String(process.pid),
    TORCHELASTIC_USE_AGENT_STORE: undefined,
    VOXTORCH_STORE_FD: rank === 0 ? '3' : undefined,
  }
}

/** What Node needs to run TypeScript: tsx where the project has it. */
function loaderFor(script: string): string[] {
  if (!['.ts', '.mts', '.cts', '.tsx'].includes(extname(script))) return []
  try {
    return ['--import', pathToFileURL(createRequire(resolve(script)).resolve('tsx')).href]
  } catch {
    if ((process.features as { typescript?: unknown }).typescript) return []
    throw new TypeError(`"${script}" is TypeScript, which this Node does not run: install tsx (npm install -D tsx).`)
  }
}

function listen(): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => resolve(server))
  })
}

/** The number of a server's socket. */
function descriptorOf(server: Server): number {
  const descriptor = (server as unknown as { _handle?: { fd?: number } })._handle?.fd
  if (typeof descriptor === 'number' && descriptor >= 0) return descriptor
  throw new Error('this Node does not tell a server its file descriptor')
}

/** Passes whole lines on, each with the rank before it. */
function forward(from: Readable, to: Writable, prefix: string): void {
  let rest = ''
  from.setEncoding('utf8')
  from.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() as string
    for (const line of lines) to.write(`${prefix}${line}\n`)
  })
  from.on('end', () => {
    if (rest !== '') to.write(`${prefix}${rest}\n`)
  })
}
