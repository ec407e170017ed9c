import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))
export const peersFolder = fileURLToPath(new URL('peers/', import.meta.url))
const distEntry = fileURLToPath(new URL('../dist/index.js', import.meta.url))

export type Versions = Record<string, string>

/** A failed request to a peer; main.ts prints the message without a stack. */
export class BenchError extends Error {}

type Waiting = { resolve: (reply: Record<string, unknown>) => void; reject: (error: Error) => void }

/** A child process that stays alive through all rounds: one JSON line in, one JSON line out. */
export class Peer {
  readonly name: string
  versions: Versions = {}
  readonly #child: ChildProcess
  readonly #waiting: Waiting[] = []

  private constructor(name: string, command: string, args: string[]) {
    this.name = name
    this.#child = spawn(command, args, { cwd: root, stdio: ['pipe', 'pipe', 'inherit'] })
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => this.#onLine(line))
    this.#child.on('error', (error) => this.#fail(error.message))
    this.#child.on('exit', (code, signal) => this.#fail(`it ended with ${signal ?? `code ${code}`}`))
  }

  static async start(name: string, command: string, args: string[]): Promise<Peer> {
    const peer = new Peer(name, command, args)
    peer.versions = (await peer.#next()) as Versions
    return peer
  }

  ask(request: Record<string, unknown>): Promise<Record<string, unknown>> {
    this.#child.stdin?.write(`${JSON.stringify(request)}\n`)
    return this.#next()
  }

  close() {
    this.#child.stdin?.end()
  }

  #next() {
    return new Promise<Record<string, unknown>>((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  #onLine(line: string) {
    if (!line.startsWith('{')) {
      process.stderr.write(`[${this.name}] ${line}\n`)
      return
    }
    const reply = JSON.parse(line) as Record<string, unknown>
    const waiting = this.#waiting.shift()
    if (reply.error === undefined) waiting?.resolve(reply)
    else waiting?.reject(new BenchError(`${this.name}: ${String(reply.error)}`))
  }

  #fail(reason: string) {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new BenchError(`The ${this.name} side of the benchmark stopped: ${reason}.`))
    }
  }
}

/** The Python that has torch: VOXTORCH_BENCH_PYTHON, else python3. */
export function findPython(): string {
  const python = process.env.VOXTORCH_BENCH_PYTHON || 'python3'
  const probe = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], { encoding: 'utf8' })
  if (probe.status === 0) return python
  const found = probe.error ? probe.error.message : (probe.stderr.trim().split('\n').at(-1) ?? '')
  throw new BenchError(
    `The benchmarks compare voxtorch with Python's torch, and "${python}" cannot import it (${found}).\n` +
      'Install it once:\n' +
      '  python3 -m venv .venv-bench\n' +
      '  .venv-bench/bin/pip install torch==2.13.0 numpy --index-url https://download.pytorch.org/whl/cpu\n' +
      '  export VOXTORCH_BENCH_PYTHON=$PWD/.venv-bench/bin/python',
  )
}

/**
 * Return the folder of npm peers, which are not dependencies of this project, from VOXTORCH_BENCH_MODULES; null if it is not set.
 * The report then lists what is not compared.
 */
export function peerModules(name: string): string | null {
  const folder = process.env.VOXTORCH_BENCH_MODULES || process.env.VOXTORCH_BENCH_ONNXRUNTIME
  if (!folder) {
    console.log(
      `not compared with ${name}: npm install --prefix DIR --ignore-scripts ${name}, ` +
        'and set VOXTORCH_BENCH_MODULES=DIR/node_modules',
    )
    return null
  }
  if (existsSync(join(folder, name))) return resolve(folder)
  throw new BenchError(`VOXTORCH_BENCH_MODULES: there is no ${name} in ${folder}.`)
}

export function checkBuilt() {
  if (existsSync(distEntry)) return
  throw new BenchError(
    'The benchmarks measure the built package (dist/), and it is not there: run "npm run build" first.',
  )
}

/** The measured Node side is plain JavaScript: a loader's helpers around each closure would be measured too. */
export function startVoxtorch(question: string): Promise<Peer> {
  checkBuilt()
  return startNode('voxtorch', question)
}

export function startNode(name: string, script: string, ...args: string[]): Promise<Peer> {
  return Peer.start(name, process.execPath, [`${peersFolder}${script}.mjs`, ...args])
}

export function startTorch(question: string, python: string): Promise<Peer> {
  return Peer.start('torch', python, ['-u', `${peersFolder}${question}.py`])
}
