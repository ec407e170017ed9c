import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { type Environment, explain, SUPPORTED } from '../native/libtorch.js'
import { type NativeInfo, nativeInfo, packageVersion } from '../native/load.js'
import { loadInChild } from './build.js'
import { which } from './provision.js'

export interface Check {
  name: string
  /** Result of the check; null for information only. */
  good: boolean | null
  /** Whether voxtorch runs without it. */
  optional?: boolean
  says: string
}

/** Check everything that voxtorch needs to run. Never throws. `healthy` does not depend on CUDA. */
export async function doctor(environment: Environment = process.env): Promise<{ lines: string[]; healthy: boolean }> {
  const info = nativeInfo()
  const fact = (name: string, says: string): Check => ({ name, good: null, says })
  // Loading may crash, so it is tried in a child process first.
  const problem = info.problem ?? loadInChild(environment)
  const native = problem === null ? await import('../native/runtime.js') : null

  const general = [
    fact('voxtorch', packageVersion()),
    {
      name: 'node',
      good: nodeFits(process.versions.node),
      says: `${process.versions.node}, supported ^20.19 || >=22.12`,
    },
    platform(),
    fact('memory', `${(totalmem() / 2 ** 30).toFixed(1)} GiB`),
  ]
  const libtorch = [
    {
      name: 'libtorch',
      good: info.search.libtorch !== null,
      says: `${info.search.libtorch?.version ?? 'none found'}, required ${info.addon?.libtorch ?? SUPPORTED.minor}`,
    },
    fact('searched', `in this order\n${explain(info.search.attempts)}`),
    {
      name: 'addon',
      good: info.addon !== null,
      says: info.addon
        ? `${info.addon.kind}, for libtorch ${info.addon.libtorch}, ${info.addon.cuda ? `CUDA ${info.addon.cuda}` : 'CPU'}, in ${info.addon.directory}`
        : 'none found',
    },
    { name: 'loads', good: problem === null, says: problem ?? 'yes, tested in a child process' },
  ]
  const cpu = [fact('CPU', cpuFeatures())]
  if (native) {
    cpu.push(fact('kernels', native.versions().cpu))
    cpu.push(fact('threads', `${native.getNumThreads()} of ${availableParallelism()} CPUs`))
    const libraries = mappedOpenMP()
    cpu.push({
      name: 'OpenMP',
      good: libraries.length === 1,
      says: `${libraries.length} mapped: ${libraries.join(', ')}`,
    })
  } else cpu.push(fact('CPUs', String(availableParallelism())))
  const build = ['python3', 'cmake', 'ninja', 'g++', 'nvcc'].map((name) =>
    fact(name, which(name, environment) ?? 'not in PATH'),
  )
  const cuda = cudaChecks(info, native).map((check) => ({ ...check, optional: true }))
  const usable = cuda.every((check) => check.good)
  const all: Check[] = [...cuda, fact('CUDA', usable ? 'usable' : 'not usable; voxtorch runs on the CPU without it')]

  const required = [...general, ...libtorch, ...cpu]
  const section = (title: string, checks: Check[]) => ['', title, ...checks.map(line)]
  const failed = required.filter((check) => check.good === false)
  return {
    lines: [
      ...section('voxtorch', general).slice(1),
      ...section('libtorch', libtorch),
      ...section('processor', cpu),
      ...section('CUDA', all),
      ...section('for building', build),
      '',
      verdict(failed, environment),
    ],
    healthy: failed.length === 0,
  }
}

/** Return the last line: whether voxtorch can run, and the next command. */
function verdict(failed: readonly Check[], environment: Environment): string {
  if (failed.length === 0) {
    return 'voxtorch can run here. Next: npx voxtorch transcribe RECORDING --model whisper-base'
  }
  const names = failed.map(({ name }) => name)
  const next = names.includes('node')
    ? 'install Node 20.19, 22.12 or newer'
    : names.includes('system')
      ? 'use Linux on x64 with glibc 2.28 or newer'
      : names.includes('OpenMP')
        ? 'start it without LD_PRELOAD, so that one OpenMP library is mapped'
        : installation(environment)
  return `voxtorch cannot run here: ${names.join(', ')} failed (marked ✗ above). Next: ${next}`
}

/** Return how to install the addon: without a compiler only a prebuilt one fits. */
function installation(environment: Environment): string {
  const compiler = environment.CXX || 'g++'
  const missing = [compiler, 'cmake'].filter((name) => which(name, environment) === null)
  if (missing.length === 0) return 'npx voxtorch install'
  return `npx voxtorch install; if no prebuilt addon fits, first install ${missing.join(' and ')}, which build it`
}

function line({ name, good, optional = false, says }: Check): string {
  const mark = good === null ? ' ' : good ? '✓' : optional ? '–' : '✗'
  return `${mark} ${name.padEnd(10)} ${says.replaceAll('\n', '\n  ')}`
}

function nodeFits(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22
}

function platform(): Check {
  const header = (process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined)?.header
  const glibc = header?.glibcVersionRuntime
  const [major = 0, minor = 0] = (glibc ?? '').split('.').map(Number)
  const good = process.platform === 'linux' && process.arch === 'x64' && (major > 2 || (major === 2 && minor >= 28))
  const library = glibc ? `glibc ${glibc}` : 'no glibc'
  return {
    name: 'system',
    good,
    says: `${process.platform}-${process.arch} ${release()}, ${library}, supported linux-x64 with glibc >= 2.28`,
  }
}

function cpuFeatures(): string {
  const flags = new Set(
    readText('/proc/cpuinfo')
      .match(/^flags\s*:(.*)$/m)?.[1]
      ?.split(' '),
  )
  const wanted = {
    AVX2: 'avx2',
    FMA: 'fma',
    'AVX-512': 'avx512f',
    'AVX-512 BF16': 'avx512_bf16',
    'AMX BF16': 'amx_bf16',
  }
  const features = Object.entries(wanted).map(([name, flag]) => `${flags.has(flag) ? '' : 'no '}${name}`)
  return `${cpus()[0]?.model ?? 'unknown'}; ${features.join(', ')}`
}

function mappedOpenMP(): string[] {
  const paths = readText('/proc/self/maps').matchAll(/\s(\/\S*\/lib(?:g|i)?omp[^/\s]*\.so\S*)/g)
  return [...new Set([...paths].map((match) => match[1] as string))]
}

function cudaChecks({ search, addon }: NativeInfo, native: typeof import('../native/runtime.js') | null): Check[] {
  const devices = existsSync('/dev') ? readdirSync('/dev').filter((name) => /^nvidia\d+$/.test(name)) : []
  const driver = driverLibrary()
  const version = readText('/proc/driver/nvidia/version').match(/Kernel Module\s+(?:for \S+\s+)?([\d.]+)/)?.[1]
  const count = native?.cudaDeviceCount()
  const { libtorch } = search
  return [
    {
      name: 'device',
      good: devices.length > 0,
      says: devices.length > 0 ? devices.map((name) => `/dev/${name}`).join(', ') : 'no /dev/nvidia0',
    },
    {
      name: 'driver',
      good: driver !== null,
      says: driver
        ? `${driver}, kernel module ${version ?? 'unknown'}`
        : 'no libcuda.so.1: the NVIDIA driver is not installed',
    },
    {
      name: 'libtorch',
      good: Boolean(libtorch?.cuda),
      says: libtorch?.cuda
        ? `built with CUDA ${libtorch.cuda}`
        : libtorch
          ? `${libtorch.version} is a CPU build`
          : 'none found',
    },
    {
      name: 'addon',
      good: Boolean(addon?.cuda),
      says: addon?.cuda
        ? `built with CUDA ${addon.cuda}`
        : addon
          ? 'CPU variant; `npx voxtorch install --cuda` builds the CUDA variant (needs nvcc and a CUDA libtorch)'
          : 'none found',
    },
    {
      name: 'devices',
      good: (count ?? 0) > 0,
      says: count === undefined ? 'not checked' : `${count} available to libtorch`,
    },
  ]
}

function driverLibrary(): string | null {
  const { stdout } = spawnSync('ldconfig', ['-p'], {
    encoding: 'utf8',
    env: { PATH: `${process.env.PATH}:/sbin:/usr/sbin` },
  })
  const line = stdout?.split('\n').find((one) => one.includes('libcuda.so.1 '))
  const known = line?.match(/=> (\S+)/)?.[1]
  const usual = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib/wsl/lib'].map((place) =>
    join(place, 'libcuda.so.1'),
  )
  return known ?? usual.find((path) => existsSync(path)) ?? null
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
