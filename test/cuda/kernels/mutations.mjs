// Is what the emulation checks enough? Breaks the kernels one place at a time and asks whether a driver notices:
// first the plain one, then the one with AddressSanitizer and UBSan, then the one with ThreadSanitizer.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, kernels } from './build.mjs'

/** @typedef {{ name: string, kernel: string, text: string }} Mutation */

/** What is replaced, once, in a kernel; and every barrier is left out in turn. @type {Record<string, [string, string, string][]>} */
const BROKEN = {
  decode_attention: [
    ['no mask', 'if (place == b.last || !args.mask) return true;', 'return true;'],
    ['the token does not see itself', 'place == b.last || !args.mask', '!args.mask'],
    ['columns that the mask does not have', 'place < args.mask_columns && ', ''],
    ['no window', 'args.window > 0 && b.last', 'false && b.last'],
    ['no bound on the position', 'position < args.capacity ? position : args.capacity - 1', 'position'],
    ['unseen keys are read', 'own < size && seen[own]', 'own < size'],
    ['unseen values are read', 'if (!seen[key]) continue;', ''],
    ['a part that sees nothing', 'largest == kNone ? 0.0f : ', ''],
    ['lanes of a key are not added', 'int offset = lanes / 2', 'int offset = lanes / 4'],
    ['parts of a block are not added', 'step == 0 ? sums[h] : query[h][d] + sums[h]', 'sums[h]'],
    ['as many query heads as fit', 'left < kDecodeHeads ? left : kDecodeHeads', 'kDecodeHeads'],
    ['vectors where they do not fit', 'dim % kWidth == 0 && keys.row', 'keys.row'],
    ['vectors where they are not aligned', ' && reinterpret_cast<uintptr_t>(keys.data) % 16 == 0', ''],
    ['dims that are apart as vectors', 'keys.dim == 1 && ', ''],
    ['each part is the whole', 'if (b.active == 1) {', 'if (true) {'],
    ['one part too few', 'b.last / chunk - b.first / chunk + 1', 'b.last / chunk - b.first / chunk'],
    ['tickets are not zero again', 'blockIdx.y, others)', 'blockIdx.y, 0xffffffffu)'],
    ['all rows draw from one ticket', 'b.row * gridDim.y + ', ''],
    ['no fence before the ticket', '__threadfence();', ''],
    ['no fence after the ticket', '__threadfence();\n  }', '}'],
  ],
  few_rows_joined: [
    ['vectors where they do not fit', 'args.in % held == 0 && ', ''],
    ['vectors where inputs are not aligned', ' && is_aligned(args.input)', ''],
    ['vectors where weights are not aligned', 'fits && is_aligned(args.projections[p].weight)', 'fits'],
    ['vectors of two blocks', 'args.projections[p].shift >= 5', 'true'],
    ['rows that there are not are read', '(r < last ? r : last)', 'r'],
    ['rows that there are not are written', ' || row >= args.rows', ''],
    ['rows that there are not have adapters', 'if (first_row + r < args.rows)', ''],
    ['weights that there are not are read', 'row < out ? row : out - 1', 'row'],
    ['outputs that there are not are written', '!slot.real || ', ''],
    ['the parts of a group are not added', 'part < splits; ++part', 'part < 1; ++part'],
    ['an adapter is added by each part', 'int64_t k = begin; b &&', 'int64_t k = lane; b &&'],
    ['the halves of a byte change places', 'i % 2 == 0 ? 4 : 0', 'i % 2 == 0 ? 0 : 4'],
    ['projections begin at the same column', 'column += args.projections[p].out', ''],
  ],
  few_rows_tiles: [
    ['vectors where weights are not aligned', 'fits && is_aligned(args.projections[p].weight)', 'fits'],
    [
      'rows that there are not are read',
      'first_row + place < args.rows ? first_row + place : args.rows - 1',
      'first_row + place',
    ],
    ['rows that there are not are written', ' || row >= args.rows', ''],
    [
      'inputs behind the end',
      'begin + i < in ? static_cast<float>(row[begin + i]) : 0.0f',
      'static_cast<float>(row[begin + i])',
    ],
    ['weights behind the end', 'if (begin + i >= in) continue;', ''],
    ['vectors of weights behind the end', 'const bool inside = begin < in;', 'const bool inside = true;'],
    ['rows that there are not have adapters', 'b && at < args.rows', 'b'],
  ],
  anti_aliased_snake: [
    [
      'the ends are not repeated',
      'data[place < 0 ? 0 : place < time ? place : time - 1]',
      'place < 0 || place >= time ? static_cast<T>(0) : data[place]',
    ],
    [
      'the doubled signal does not repeat its first',
      'return place < 0 ? even[k - place] : place < tile.time ? even[k]',
      'return place < tile.time ? even[k]',
    ],
    [
      'its last is the even one',
      'even[k] : odd[tile.time - 1 - tile.start]',
      'even[k] : even[tile.time - 1 - tile.start]',
    ],
    ['the second half is not doubled', 'up[k] = 2 * static_cast', 'up[k] = static_cast'],
    ['outputs behind the end', 'k < kTile && tile.first + k < tile.time', 'k < kTile'],
    ['gradients of what is before the first', 'n <= kBefore && place == 0', 'n < 0'],
    ['gradients of what is behind the last', 'n < kBefore && place == time - 1', 'n < 0'],
    [
      'places that two tiles see count twice',
      'const bool owned = k >= kBefore && k < kBefore + kTile;',
      'const bool owned = true;',
    ],
    ['places before the first are filtered', 'tile.first + k == 0; ++n) sum', 'false; ++n) sum'],
    ['places behind the last are filtered', 'tile.first + k == time - 1; ++n) sum', 'false; ++n) sum'],
    ['no bound on the gradients', 'if (i >= 0 && i < time) sum', 'sum'],
    ['half of the threads are summed', 'int half = kThreads / 2', 'int half = kThreads / 4'],
    ['no bound before the phases', 'if (k + q + 1 >= 0 && k + q + 1 < kPlaces) sum', 'if (k + q + 1 < kPlaces) sum'],
  ],
  rotary_append: [
    ['no bound on the threads', 'if (at >= args.rows * blocks * half) return;', ''],
    ['places that the cache does not have', 'if (place < 0 || place >= args.capacity) return;', ''],
    ['values are rotated', 'if (block < args.heads + args.kv_heads && d < turns) {', 'if (d < turns) {'],
    ['all of a head rotates', '&& d < turns) {', ') {'],
    ['one rotation for all rows', 'row * args.rotation_row + d', 'd'],
    ['values begin where keys do', '(is_key ? 0 : args.kv_heads)', '0'],
  ],
  adamw_8bit: [
    [
      'the scale before the maximum of the warp',
      'for (int bits = kWarp / 2; bits > 0; bits /= 2) largest',
      'for (int bits = 0; bits > 0; bits /= 2) largest',
    ],
    ['no bound on the elements', 'if (element >= count) continue;', ''],
    [
      'the next parameter one block late',
      'while (block >= args.begins[at + 1]) ++at;',
      'while (block > args.begins[at + 1]) ++at;',
    ],
    ['a step for all parameters', 'if (known != at) {', 'if (known < 0) {'],
    ['the correction of the wrong lane', 'rate = __shfl_sync(kAll, rate, 1);', 'rate = __shfl_sync(kAll, rate, 0);'],
    [
      'one run too few',
      'const uint64_t grid = (blocks + each * kWarps - 1)',
      'const uint64_t grid = (blocks + each * kWarps - kWarps * each / 2)',
    ],
  ],
  gated_position_attention: [
    ['masked keys are loaded', 'attends(in, at, row)', 'row < in.time'],
    ['no mask in the backward', 'query < in.time && attends(in, at, key)', 'query < in.time && key < in.time'],
    ['no room for the scores', '(2 * kRows + kScores) * sizeof', '(2 * kRows) * sizeof'],
    ['free keys give the distances a gradient', ' && first + k >= in.free_keys) total', ') total'],
    ['no key is free', ' || key < in.free_keys) return 0;', ') return 0;'],
    ['tensor cores: no key is free', 'key < in.free_keys ? 2 : 1', '1'],
    [
      'tensor cores: free keys give the distances a gradient',
      'beside.attends[key] == 2 ? 0.0f : gate[half] * one',
      'gate[half] * one',
    ],
    ['shared memory is not asked for', 'if (bytes <= 48 << 10) return', 'return'],
    ['one diagonal too few', 'n < 2 * Tile - 1)', 'n < 2 * Tile - 2)'],
    ['all blocks add to one part', ' + blockIdx.x * span(in)', ''],
    ['no bound on the distances', 'if (index >= in.heads * distances) return;', ''],
    ['the gate from the rounded output', ' - row_sum(rest[r]) * row_sum(mean[r])', ''],
    ['the maximum of the last tile alone', 'best = top[r] > best ? top[r] : best;', ''],
    ['tensor cores: masked keys are loaded', 'Attended ? attends(in, at, row) : row < in.time', 'row < in.time'],
    ['tensor cores: no mask in the backward', 'inside && beside.attends[key]', 'inside'],
    ['tensor cores: no mask in the gradients of keys', 'first + query < in.time && beside.attends[key]', 'true'],
    [
      'tensor cores: numbers beyond dim',
      'width = static_cast<int>((in.dim + 15) / 16 * 16)',
      'width = static_cast<int>(in.dim)',
    ],
    ['tensor cores: 16 bytes that are not aligned', ' && reinterpret_cast<uintptr_t>(data) % 16 == 0', ''],
    ['tensor cores: the right side is not turned over', 'load_matrices_transposed(right', 'load_matrices(right'],
    ["tensor cores: two words in each other's place", 'left, right[2], right[3]', 'left, right[3], right[2]'],
    ['tensor cores: the first number in the upper half', '"f"(second), "f"(first)', '"f"(first), "f"(second)'],
    ['tensor cores: the rows of half a matrix', '8 * n * kPitch + 16 * step', '4 * n * kPitch + 16 * step'],
    ['tensor cores: dropout of other keys', '>> (key / kSide) & 1', '>> (key / 32) & 1'],
    ['tensor cores: sums of another maximum', 'sum[n][2 * half] *= correction;', ''],
    [
      'tensor cores: a row of two lanes',
      'for (int lane = 2; lane > 0; lane /= 2) value',
      'for (int lane = 1; lane > 0; lane /= 2) value',
    ],
    ['tensor cores: the gate from the rounded output', ' - row_sum(rest[half]) * row_sum(mean[half])', ''],
    ['tensor cores: one diagonal too few', 'n < 2 * kTile - 1)', 'n < 2 * kTile - 2)'],
    ['tensor cores: no room for the scores', ' + kTile * kScorePitch * sizeof(float)', ''],
    [
      'tensor cores: lanes leave before a product',
      'const Place at = place(in);\n    T* const queries',
      'const Place at = place(in);\n    if (at.first + 16 * at.warp + at.group >= in.time) return;\n    T* const queries',
    ],
  ],
  rms_norm_residual: [
    ['vectors where they do not fit', 'if (dim % Width != 0) return false;', ''],
    ['vectors where they are not aligned', '% (Width * sizeof(T)) != 0', '% sizeof(T) != 0'],
    ['one warp too many is summed', 'warp < blockDim.x / kWarp', 'warp <= blockDim.x / kWarp'],
    ['all blocks add to one part', ' + static_cast<int64_t>(blockIdx.x) * args.dim : nullptr', ' : nullptr'],
    ['no whole warps', 'threads = (threads + kWarp - 1) / kWarp * kWarp;', ''],
  ],
  transducer_loss: [
    ['the last pair of a row is its last', 'rows.first_pairs[middle] <= at', 'rows.first_pairs[middle] < at'],
    ['the last state has a target', 'pair.u + 1 < pair.states ? ', 'pair.u < pair.states ? '],
    [
      'chunks begin at the first pair',
      'args.chunk.first + blockIdx.x);\n  const int64_t dim',
      'blockIdx.x);\n  const int64_t dim',
    ],
    ['sums are not rounded', 'narrow<T, Acc>(static_cast<Acc>(encoder[d]) + static_cast<Acc>(predictor[d]))', '0'],
    [
      'warps are not joined',
      'unsigned warp = 1; warp < blockDim.x / kWarp; ++warp',
      'unsigned warp = 1; warp < 1; ++warp',
    ],
    ['no sigma', ' - all - sigma;\n    values[kTransducerTarget]', ' - all;\n    values[kTransducerTarget]'],
    ['NaN is passed over', ' || value != value', ''],
    ['arcs from before the first frame', 'from_t < 0 || ', ''],
    ['arcs from before the first state', 'from_u < 0 || ', ''],
    ['blanks of no duration lead on', 'return is_target(arc) || duration(arc) > 0;', 'return true;'],
    ['a diagonal of one pass', 'u < end; u += blockDim.x) visit', 'u < end; u += 1000000) visit'],
    ['frames that a diagonal does not have', 'n < frames ? 0 : n - frames + 1', '0'],
    ['the end is reached by targets', 't < 0 || lattice.is_target(arc)', 't < 0'],
    ['an alignment may end after the end', 'if (to_t > lattice.frames || to_u', 'if (to_u'],
    [
      'an alignment may end before its last target',
      '!lattice.is_target(arc) && to_u == lattice.states - 1',
      '!lattice.is_target(arc)',
    ],
    ['rows without alignments have gradients', 'total != kImpossible && ', ''],
    ['the weights of the losses are 1', 'const double share = factor * ', 'const double share = '],
    ['the target of a pair has no gradient', 'if (v == target) grad -= used[1];', ''],
    ['durations have no gradient', ' - used[kTransducerUses + k]', ''],
    ['a frame ends with its row', 'frame_end < end ? frame_end : end', 'end'],
    ['a frame that a chunk begins within', '(place == 0 || pair.u == 0)', '(pair.u == 0)'],
    ['a state that a chunk begins within', 'pair.t == 0 || place < pair.states', 'pair.t == 0'],
    ['a chunk ends with the row', 'left < args.chunk.count ? left : args.chunk.count', 'left'],
    ['a row ends with the chunk', 'left < args.chunk.count ? left : args.chunk.count', 'args.chunk.count'],
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

/** The file with the kernels' own headers in their places, each once. @param {string} path @param {Set<string>} [seen] @returns {string} */
function inlined(path, seen = new Set()) {
  return readFileSync(path, 'utf8').replace(/#include "core\/kernels\/([^"]+\.cuh)"\n/g, (_, name) => {
    if (seen.has(name)) return ''
    seen.add(name)
    return inlined(fileURLToPath(new URL(`../../../native/core/kernels/${name}`, import.meta.url)), seen)
  })
}

/** @returns {Mutation[]} */
export function mutations() {
  return kernels.flatMap((path) => {
    const kernel = basename(path, '.cu')
    const text = inlined(path)
    const barriers = [...text.matchAll(/__syncthreads\(\);/g)].map(({ index, 0: { length } }, at, { length: all }) => {
      const inside = [...text.slice(0, index).matchAll(/__device__ static void (\w+)|__global__ [^;{]*?(\w+)\(/g)].at(
        -1,
      )
      const name = `without barrier ${at + 1} of ${all}, in ${inside?.[1] ?? inside?.[2]}`
      return { name, kernel, text: text.slice(0, index) + text.slice(index + length) }
    })
    const broken = (BROKEN[kernel] ?? []).map(([name, what, instead]) => {
      if (!text.includes(what)) throw new Error(`${kernel} has no "${what}" any more: mutations.mjs is out of date`)
      return { name, kernel, text: text.replace(what, () => instead) }
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
