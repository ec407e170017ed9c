import { readFileSync } from 'node:fs'
import { BenchError } from './peer.js'

/** An instruction set that all sides are held to: what each library reads when it starts, and what the processor must have. */
interface Level {
  env: Record<string, string>
  flags: string[]
}

const LEVELS: Record<string, Level> = {
  avx2: {
    env: {
      ONEDNN_MAX_CPU_ISA: 'AVX2',
      ATEN_CPU_CAPABILITY: 'avx2',
      MKL_ENABLE_INSTRUCTIONS: 'AVX2',
      CT2_FORCE_CPU_ISA: 'AVX2',
    },
    flags: ['avx2', 'fma'],
  },
  avx512: {
    env: {
      ONEDNN_MAX_CPU_ISA: 'AVX512_CORE_FP16', // the last one without AMX; less where the processor has less
      ATEN_CPU_CAPABILITY: 'avx512',
      MKL_ENABLE_INSTRUCTIONS: 'AVX512',
      CT2_FORCE_CPU_ISA: 'AVX512',
    },
    flags: ['avx512f', 'avx512bw', 'avx512vl'],
  },
  amx: { env: {}, flags: ['amx_tile', 'amx_bf16', 'amx_int8'] },
}

/** Variable in which llama.cpp's peer finds the level: llama.cpp has one library per processor level. */
export const ISA_VARIABLE = 'VOXTORCH_BENCH_ISA'

/** Holds every process that is started from here on, of both sides, to that level. */
export function holdTo(name: string): void {
  const level = LEVELS[name]
  if (level === undefined) throw new BenchError(`--isa takes ${Object.keys(LEVELS).join(', ')}, not "${name}".`)
  const has = processorFlags()
  const missing = level.flags.filter((flag) => !has.has(flag))
  if (missing.length > 0) throw new BenchError(`--isa ${name}: this processor has no ${missing.join(', ')}.`)
  for (const variable of Object.keys({ ...LEVELS.avx2.env })) delete process.env[variable]
  Object.assign(process.env, level.env, { [ISA_VARIABLE]: name })
}

/** Text for the report. */
export function isaOf(): string {
  const name = process.env[ISA_VARIABLE]
  const set = Object.keys(LEVELS.avx2.env).filter((variable) => process.env[variable] !== undefined)
  const held = set.map((variable) => `${variable}=${process.env[variable]}`).join(' ')
  if (name === undefined) return held === '' ? 'its own' : `its own, but for ${held}`
  return held === '' ? name : `${name} (${held})`
}

const TOLD = ['avx2', 'avx_vnni', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'avx512_fp16', 'amx_bf16', 'amx_int8']

/** The instruction sets of this processor that decide about speed. */
export function capability(): string {
  const has = processorFlags()
  return TOLD.filter((flag) => has.has(flag)).join(' ')
}

function processorFlags(): Set<string> {
  try {
    const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? ''
    return new Set(line.trim().split(/\s+/))
  } catch {
    return new Set() // not Linux
  }
}
