import { describe, expect, test } from 'vitest'
import { complaints, findNvcc, measure, parse } from '../../../bench/gpu/registers.mjs'

// Registers that do not suffice are kept in local memory, which no number that a kernel computes shows.

// Two minutes of nvcc: in `npm run test:cuda`.
const nvcc = process.env.VOXTORCH_CUDA_SUITES === 'all' ? findNvcc() : null

describe.skipIf(!nvcc)('what ptxas makes of the kernels (npm run test:cuda; skipped where there is no nvcc)', () => {
  test('no kernel spills, or has a stack, that is not named with its reason', async () => {
    const rows = await measure(nvcc!)
    expect(new Set(rows.map(({ sm }) => sm))).toEqual(new Set(['80', '90']))
    expect(new Set(rows.map(({ file }) => file)).size).toBeGreaterThanOrEqual(3)
    expect(complaints(rows)).toEqual([])
  })
})

const said = (
  name: string,
  stack: number,
  spills: number,
) => `ptxas info    : Compiling entry function '${name}' for 'sm_90'
ptxas info    : Function properties for ${name}
    ${stack} bytes stack frame, ${spills} bytes spill stores, ${spills + 4} bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 64 bytes smem
`

test('what ptxas says is read', () => {
  const name = 'void voxtorch::kernels::(anonymous namespace)::some_kernel<Rows<float, 4> >(Args<int>, float*)'
  expect(parse(said(name, 24, 8), 'some')).toEqual([
    {
      file: 'some',
      kernel: 'some_kernel<Rows<float, 4>>',
      sm: '90',
      registers: 255,
      spillStores: 8,
      spillLoads: 12,
      stack: 24,
      shared: 64,
    },
  ])
  expect(() => parse("Compiling entry function 'f()' for 'sm_90'", 'some')).toThrow(/in other words/)
})

test('a spill, a stack and an exception that nobody needs are complained about', () => {
  const [row] = parse(said('f()', 24, 8), 'some')
  expect(complaints([row!])).toEqual([
    expect.stringContaining('some: f for sm_90 spills 8 bytes and loads 12; 0 are allowed'),
    expect.stringContaining('a stack of 24 bytes; 0 are allowed'),
  ])
  const better = { ...row!, file: 'gated_position_attention', spillStores: 0, spillLoads: 0, stack: 0 }
  expect(complaints([better])).toEqual([expect.stringMatching(/gated_position_attention needs its exception/)])
})
