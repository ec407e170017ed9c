import { execFileSync } from 'node:child_process'
import { expect, it } from 'vitest'

// Many rows with GGUF's blocks, against float64: of the inputs as they are, or on processors with AMX of inputs and
// weights rounded to bfloat16. Outputs that fill no panel, rows that fill no tile, every kind of block.
const PROGRAM = `
  import { manualSeed, noGrad, ops, randint, randn, scope } from '${new URL('../../dist/modules/index.js', import.meta.url)}'
  import { op } from '${new URL('../../dist/modules/native/call.js', import.meta.url)}'
  const [encode, decode, linear] = ['gguf_quantize', 'gguf_dequantize', 'quantized_linear'].map((name) => op('voxtorch::' + name))
  const kinds = [['q8_0', 8, 32, 34], ['q4_0', 2, 32, 18], ['q4_1', 3, 32, 20, 0, 2], ['q4_k', 12, 256, 144, 0, 2], ['q6_k', 14, 256, 210, 208]]
  const off = (a, b) => a.double().sub(b).abs().max().item() / b.abs().max().item()
  manualSeed(1)
  const worst = { plain: 0, rounded: 0 }
  noGrad(() => scope(() => {
    for (const [scheme, type, block, bytes, ...halves] of kinds) {
      for (const [rows, from, to] of [[24, 256, 3], [32, 768, 401], [45, 512, 330], [100, 2048, 64]]) {
        let codes
        if (halves.length === 0) codes = encode(randn([to, from]), type).view([to, from / block * bytes])
        else {
          const blocks = randint(0, 256, [to * from / block, bytes], { dtype: 'uint8' })
          const scales = randn([to * from / block, halves.length]).mul(0.01).to('float16').view('uint8')
          halves.forEach((at, i) => blocks.narrow(1, at, 2).copy_(scales.narrow(1, 2 * i, 2)))
          codes = blocks.view([to, from / block * bytes])
        }
        const values = decode(codes.flatten(), type, [to, from])
        const [input, bias] = [randn([rows, from]), randn([to])]
        for (const offset of [bias, null]) {
          const made = linear(input.view([1, rows, from]), codes, null, [to, from], offset, { scheme }).squeeze(0)
          worst.plain = Math.max(worst.plain, off(made, ops.linear(input.double(), values.double(), offset?.double() ?? null)))
          const short = (x) => x.to('bfloat16').double()
          worst.rounded = Math.max(worst.rounded, off(made, ops.linear(short(input), short(values), offset?.double() ?? null)))
        }
        const half = linear(input.to('bfloat16'), codes, null, [to, from], null, { scheme })
        if (half.dtype !== 'bfloat16') throw new Error(half.dtype)
        const whole = ops.linear(input.to('bfloat16').double(), values.double())
        if (!(off(half, whole) < 2 ** -6)) throw new Error(scheme + ' in bfloat16: ' + off(half, whole))
        const bad = input.clone()
        bad.select(0, 7).select(0, 5).fill_(NaN)
        const none = linear(bad, codes, null, [to, from], null, { scheme }).isnan()
        if (none.any(1).toArray().some((is, i) => is !== (i === 7)) || !none.select(0, 7).all().item()) throw new Error('NaN')
      }
    }
  }))
  console.log(JSON.stringify(worst))`

it.each([
  {},
  { ONEDNN_MAX_CPU_ISA: 'AVX512_CORE' },
  { ATEN_CPU_CAPABILITY: 'avx2' },
  { ATEN_CPU_CAPABILITY: 'default' },
] as NodeJS.ProcessEnv[])('many rows times blocks equal the float64 product: %j', { timeout: 300_000 }, (env) => {
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  })
  const { plain, rounded } = JSON.parse(out)
  const held = Object.keys(env).length > 0
  expect(held ? plain : Math.min(plain, rounded), out).toBeLessThan(1e-5)
})
