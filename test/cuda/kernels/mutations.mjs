// Is what the emulation checks enough? Breaks the kernels one place at a time and asks whether a driver notices:
// first the plain one, then the one with AddressSanitizer and UBSan, then the one with ThreadSanitizer.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { build, kernels } from './build.mjs'

/** @typedef {{ name: string, kernel: string, text: string }} Mutation */

/** What is replaced, once, in a kernel; and every barrier is left out in turn. @type {Record<string, [string, string, string][]>} */
const BROKEN = {
  adamw_8bit: [
    ['the scale before the maximum of the warp', 'for (int bits = kWarp / 2; bits > 0; bits /= 2) largest', 'for (int bits = 0; bits > 0; bits /= 2) largest'],
    ['no bound on the elements', 'if (element >= count) continue;', ''],
    ['the next parameter one block late', 'while (block >= args.begins[at + 1]) ++at;', 'while (block > args.begins[at + 1]) ++at;'],
    ['a step for all parameters', 'if (known != at) {', 'if (known < 0) {'],
    ['the correction of the wrong lane', 'rate = __shfl_sync(kAll, rate, 1);', 'rate = __shfl_sync(kAll, rate, 0);'],
    ['one run too few', 'const uint64_t grid = (blocks + each * kWarps - 1)', 'const uint64_t grid = (blocks + each * kWarps - kWarps * each / 2)'],
  ],
  gated_position_attention: [
    ['masked keys are loaded', 'attends(in, at, row)', 'row < in.time'],
    ['no mask in the backward', 'query < in.time && attends(in, at, key)', 'query < in.time && key < in.time'],
    ['no room for the scores', '(2 * kRows + kScores) * sizeof', '(2 * kRows) * sizeof'],
    ['shared memory is not asked for', 'if (bytes <= 48 << 10) return', 'return'],
    ['one diagonal too few', 'n < 2 * Tile - 1)', 'n < 2 * Tile - 2)'],
    ['all blocks add to one part', ' + blockIdx.x * span(in)', ''],
    ['no bound on the distances', 'if (index >= in.heads * distances) return;', ''],
    ['the gate from the rounded output', ' - row_sum(rest[r]) * row_sum(mean[r])', ''],
    ['the maximum of the last tile alone', 'best = top[r] > best ? top[r] : best;', ''],
  ],
  rms_norm_residual: [
    ['vectors where they do not fit', 'if (dim % Width != 0) return false;', ''],
    ['vectors where they are not aligned', '% (Width * sizeof(T)) != 0', '% sizeof(T) != 0'],
    ['one warp too many is summed', 'warp < blockDim.x / kWarp', 'warp <= blockDim.x / kWarp'],
    ['all blocks add to one part', ' + static_cast<int64_t>(blockIdx.x) * args.dim : nullptr', ' : nullptr'],
    ['no whole warps', 'threads = (threads + kWarp - 1) / kWarp * kWarp;', ''],
  ],
  window_cross_attention: [
    [
      'lanes leave before a shuffle',
      'const Place p = place_of(call, at);',
      'const Place p = place_of(call, at); if (threadIdx.x % kWarp >= call.dim) return;',
    ],
    ['no bound on the queries', 'if (at >= query_count(call)) return;', ''],
    ['one window too many', 'w <= last && w < call.windows', 'w <= last + 1 && w < call.windows'],
    ['no bound on the windows', 'w <= last && w < call.windows', 'w <= last'],
    [
      'frames beyond the length',
      'p.count = left < 0 ? 0 : left < call.window ? left : call.window;',
      'p.count = call.window;',
    ],
  ],
}

/** @returns {Mutation[]} */
export function mutations() {
  return kernels.flatMap((path) => {
    const kernel = basename(path, '.cu')
    const files = [path, ...(kernel === 'gated_position_attention' ? [path.replace(/[^/]+$/, 'tiles.cuh')] : [])]
    const text = readFileSync(path, 'utf8')
    const barriers = [...text.matchAll(/__syncthreads\(\);/g)].map(({ index, 0: { length } }) => ({
      name: `without the barrier of line ${text.slice(0, index).split('\n').length}`,
      kernel,
      text: text.slice(0, index) + text.slice(index + length),
    }))
    const broken = (BROKEN[kernel] ?? []).map(([name, what, instead]) => {
      const inlined = text.replace(/#include "(core\/[^"]+tiles\.cuh)"/, () => readFileSync(files[1], 'utf8'))
      if (!inlined.includes(what)) throw new Error(`${kernel} has no "${what}" any more: mutations.mjs is out of date`)
      return { name, kernel, text: inlined.replace(what, () => instead) }
    })
    return [...barriers, ...broken]
  })
}

/**
 * @param {Mutation} mutation
 * @param {('plain' | 'asan' | 'tsan')[]} kinds
 * @returns {Promise<string | null>} what noticed it, and in which words
 */
export async function noticed({ kernel, text }, kinds) {
  for (const kind of kinds) {
    const driver = await build(kind, { [`${kernel}.cu`]: text })
    const { status, signal, stdout, stderr } = spawnSync(driver, kind === 'plain' ? [kernel] : [kernel, 'quick'], {
      encoding: 'utf8',
      timeout: 300_000,
      env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=0', TSAN_OPTIONS: 'halt_on_error=1' },
    })
    if (status === 0) continue
    const words = /(?:FAILED|emulation:|runtime error:|SUMMARY:) [^\n]*/.exec(stdout + stderr)?.[0]
    return `${kind}: ${(words ?? `ended with ${status ?? signal}`).replace(/\/\S*\//g, '').slice(0, 110)}`
  }
  return null
}
