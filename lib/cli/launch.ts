import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer, type Server } from 'node:net'
import { availableParallelism, constants, networkInterfaces } from 'node:os'
import { extname, resolve } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { pathToFileURL } from 'node:url'

// `voxtorch launch`: starts the processes of a distributed training on one machine, and ends all when one fails.

/** Time that processes get to end after a signal, for instance to save, in milliseconds. */
const GRACE = 10_000
/** Time that the other ranks get to end by themselves after one failed, in milliseconds. */
const OWN_END = 2_000

export interface LaunchOptions {
  processes: number
  script: string
  /** Arguments of the script. */
  values: string[]
}

/** Parse the command line after `launch`. @throws TypeError for invalid arguments */
export function parseLaunch(values: string[]): LaunchOptions {
  const usage = 'Usage: voxtorch launch --nproc N script.js [arguments].'
  let processes: number | undefined
  let at = 0
  for (; at < values.length && values[at]?.startsWith('-'); at++) {
    const [, name, inline] = /^(--[a-z-]+)(?:=(.*))?$/.exec(values[at] as string) ?? []
    if (name !== '--nproc' && name !== '--nproc-per-node') {
      throw new TypeError(
        `launch: expected --nproc before the script, got the unknown option "${values[at]}". ${usage}`,
      )
    }
    const count = inline ?? values[++at]
    if (!count || !/^[1-9]\d{0,3}$/.test(count)) {
      throw new TypeError(`${name}: expected a number of processes from 1 to 9999, got "${count ?? ''}". ${usage}`)
    }
    processes = Number(count)
  }
  const script = values[at]
  if (processes === undefined) throw new TypeError(`--nproc: expected the number of processes, got none. ${usage}`)
  if (script === undefined) throw new TypeError(`launch: expected a script, got none. ${usage}`)
  if (!existsSync(script)) throw new TypeError(`${script}: the script does not exist. Check its path.`)
  return { processes, script, values: values.slice(at + 1) }
}

/** Run a script in several processes. Return the exit code: 0, or that of the first process that failed. */
export async function launch(values: string[]): Promise<number> {
  const { processes, script, values: scriptArguments } = parseLaunch(values)
  const node = [...process.execArgv, ...loaderFor(script), script, ...scriptArguments]
  const server = await listen()
  const { port } = server.address() as { port: number }
  const children = Array.from({ length: processes }, (_, rank) =>
    spawn(process.execPath, node, {
      env: environmentOf(rank, processes, port),
      // Rank 0 inherits the listening socket, so no other program can take the port in between.
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

/** Wait for all processes; when one fails, end the others. */
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
    // A terminal sends ^C to the whole process group.
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
            // Most ranks notice the failure themselves, and print more than after a signal.
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
    // The loopback interface works without name resolution and firewall rules.
    ...(networkInterfaces().lo && { GLOO_SOCKET_IFNAME: 'lo' }),
    OMP_NUM_THREADS: String(threads),
    ...process.env,
    RANK: String(rank),
    LOCAL_RANK: String(rank),
    WORLD_SIZE: String(processes),
    LOCAL_WORLD_SIZE: String(processes),
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(port),
    // Ranks check whether the launcher is still running: see native/core/runtime/launcher.cc.
    VOXTORCH_LAUNCHER_PID: String(process.pid),
    TORCHELASTIC_USE_AGENT_STORE: undefined,
    VOXTORCH_STORE_FD: rank === 0 ? '3' : undefined,
  }
}

/** Return the arguments with which Node runs a TypeScript file: those of tsx, if it is installed. */
function loaderFor(script: string): string[] {
  if (!['.ts', '.mts', '.cts', '.tsx'].includes(extname(script))) return []
  try {
    return ['--import', pathToFileURL(createRequire(resolve(script)).resolve('tsx')).href]
  } catch {
    if ((process.features as { typescript?: unknown }).typescript) return []
    throw new TypeError(`${script}: this version of Node does not run TypeScript. Install tsx: npm install -D tsx.`)
  }
}

function listen(): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => resolve(server))
  })
}

/** Return the file descriptor of a server's socket. */
function descriptorOf(server: Server): number {
  const descriptor = (server as unknown as { _handle?: { fd?: number } })._handle?.fd
  if (typeof descriptor === 'number' && descriptor >= 0) return descriptor
  throw new Error('launch: this version of Node has no access to the file descriptor of a socket')
}

/** Forward whole lines, each with a prefix. */
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
