// A character-level GPT in the shape of nanoGPT. test/reference/tutorials.py ran it in PyTorch.
import { describe, expect, it } from 'vitest'
import {
  AdamW,
  arange,
  cat,
  clipGradNorm,
  Embedding,
  functional,
  GELU,
  LambdaLR,
  LayerNorm,
  Linear,
  Module,
  ModuleDict,
  ModuleList,
  manualSeed,
  noGrad,
  ones,
  randint,
  Sequential,
  scope,
  slice,
  stack,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { expectWeights, STEPS, TOLERANCE } from './tolerance.js'

const TEXT = 'the cat sat on the mat, and the rat sat on the hat of the cat; then the cat ate the rat. '
const [BLOCK, WIDTH, HEADS, LAYERS] = [16, 16, 2, 2]

const file = await fixture<{ name: string; counts: [number, number]; text: string }>('tutorials/gpt')

type Attend = (q: Tensor, k: Tensor, v: Tensor, mask: Tensor) => Tensor

const byHand: Attend = (q, k, v, mask) => {
  const scores = q.matmul(k.transpose(-2, -1)).div(Math.sqrt(k.size(-1)))
  const time = q.size(-2)
  const visible = mask.at(slice(), slice(), slice(null, time), slice(null, time))
  return functional.softmax(scores.maskedFill(visible.eq(0), -Infinity), { dim: -1 }).matmul(v)
}

const fused: Attend = (q, k, v) => functional.scaledDotProductAttention(q, k, v, { isCausal: true })

class CausalSelfAttention extends Module {
  // Without a bias: that of the keys has no gradient but rounding, which Adam scales up.
  c_attn = new Linear(WIDTH, 3 * WIDTH, { bias: false })
  c_proj = new Linear(WIDTH, WIDTH)
  mask = this.registerBuffer('mask', ones([BLOCK, BLOCK]).tril().view([1, 1, BLOCK, BLOCK]), { persistent: false })

  constructor(readonly attend: Attend) {
    super()
  }

  override forward(x: Tensor): Tensor {
    const [batch, time, width] = x.shape as [number, number, number]
    const [q, k, v] = this.c_attn
      .forward(x)
      .split(width, 2)
      .map((part) => part.view([batch, time, HEADS, -1]).transpose(1, 2)) as [Tensor, Tensor, Tensor]
    const mixed = this.attend(q, k, v, this.mask)
    return this.c_proj.forward(mixed.transpose(1, 2).contiguous().view([batch, time, width]))
  }
}

class Block extends Module {
  norm_1 = new LayerNorm(WIDTH)
  attn: CausalSelfAttention
  norm_2 = new LayerNorm(WIDTH)
  mlp = new Sequential(new Linear(WIDTH, 4 * WIDTH), new GELU(), new Linear(4 * WIDTH, WIDTH))

  constructor(attend: Attend) {
    super()
    this.attn = new CausalSelfAttention(attend)
  }

  override forward(input: Tensor): Tensor {
    return scope(() => {
      const x = input.add(this.attn.forward(this.norm_1.forward(input)))
      return x.add(this.mlp.forward(this.norm_2.forward(x)))
    })
  }
}

class GPT extends Module {
  transformer: ModuleDict
  lm_head: Linear
  readonly #wte: Embedding
  readonly #wpe = new Embedding(BLOCK, WIDTH)
  readonly #blocks: ModuleList<Block>
  readonly #norm = new LayerNorm(WIDTH)

  constructor(vocabulary: number, attend: Attend) {
    super()
    this.#wte = new Embedding(vocabulary, WIDTH)
    this.#blocks = new ModuleList(Array.from({ length: LAYERS }, () => new Block(attend)))
    this.transformer = new ModuleDict<Module>({
      wte: this.#wte,
      wpe: this.#wpe,
      h: this.#blocks,
      norm_f: this.#norm,
    })
    this.lm_head = new Linear(WIDTH, vocabulary, { bias: false })
    this.lm_head.weight = this.#wte.weight
  }

  override forward(tokens: Tensor, targets?: Tensor): { logits: Tensor; loss: Tensor | null } {
    return scope(() => {
      let x = this.#wte.forward(tokens).add(this.#wpe.forward(arange(tokens.size(1))))
      for (const block of this.#blocks) x = block.forward(x)
      const logits = this.lm_head.forward(this.#norm.forward(x))
      if (targets === undefined) return { logits, loss: null }
      return { logits, loss: functional.crossEntropy(logits.view([-1, logits.size(-1)]), targets.view([-1])) }
    })
  }

  generate(prompt: Tensor, count: number, temperature: number, topK: number): Tensor {
    return noGrad(() =>
      scope(() => {
        let tokens = prompt
        for (let i = 0; i < count; i += 1) {
          const context = tokens.at(slice(), slice(-BLOCK))
          const logits = this.forward(context).logits.at(slice(), -1).div(temperature)
          const { values } = logits.topk(topK)
          logits.maskedFill_(logits.lt(values.at(slice(), [-1])), -Infinity)
          tokens = cat([tokens, functional.softmax(logits, { dim: -1 }).multinomial(1)], 1)
        }
        return tokens
      }),
    )
  }
}

/** Return a factor on the learning rate: linear warm-up, then a cosine down to `low`. */
function learningRate(step: number, warmup = 5, last = 20, low = 0.1): number {
  if (step < warmup) return (step + 1) / (warmup + 1)
  const ratio = (step - warmup) / (last - warmup)
  return low + 0.5 * (1 + Math.cos(Math.PI * ratio)) * (1 - low)
}

describe('a character GPT', () => {
  it.each([
    ['attention by hand', byHand],
    ['scaledDotProductAttention', fused],
  ])('with %s', async (_name, attend) => {
    const characters = [...new Set(TEXT)].sort()
    const data = tensor([...TEXT].map((character) => characters.indexOf(character)))
    const model = new GPT(characters.length, attend)
    model.loadStateDict(tensorsOf(file, 'gpt', 'param'))
    expect(model.lm_head.weight).toBe(model.get<Embedding>('transformer.wte').weight)

    const decay = model.parameters().filter((parameter) => parameter.dim() >= 2)
    const others = model.parameters().filter((parameter) => parameter.dim() < 2)
    const [{ counts, text }] = file.cases as [(typeof file.cases)[number]]
    expect([decay.length, others.length]).toEqual(counts)
    const optimizer = new AdamW(
      [
        { params: decay, weightDecay: 0.1 },
        { params: others, weightDecay: 0 },
      ],
      { lr: 1e-2, betas: [0.9, 0.95] },
    )
    const scheduler = new LambdaLR(optimizer, (step) => learningRate(step))
    const [losses, norms, rates]: [number[], number[], number[]] = [[], [], []]
    manualSeed(5)
    for (let step = 0; step < STEPS; step += 1) {
      await scope(async () => {
        const offsets = randint(data.size(0) - BLOCK, [4]).tolist() as number[]
        const x = stack(offsets.map((i) => data.at(slice(i, i + BLOCK))))
        const y = stack(offsets.map((i) => data.at(slice(i + 1, i + 1 + BLOCK))))
        const { loss } = model.forward(x, y)
        optimizer.zeroGrad()
        await loss!.backward()
        norms.push(await clipGradNorm(model.parameters(), 1))
        await optimizer.step()
        rates.push(optimizer.groups[0]!.lr)
        scheduler.step()
        losses.push(loss!.item())
      })
    }
    const series = tensorsOf(file, 'gpt', 'series')
    expectClose(tensor(losses), series.losses!, TOLERANCE, 'losses')
    expectClose(tensor(norms), series.norms!, TOLERANCE, 'norms')
    expectClose(tensor(rates), series.rates!, 1e-6, 'rates')
    expectWeights(model.stateDict(), tensorsOf(file, 'gpt', 'out'))

    manualSeed(6)
    const ids = model.generate(data.at(slice(0, 4)).unsqueeze(0), 24, 0.8, 5)
    expect((ids.at(0).tolist() as number[]).map((id) => characters[id]).join('')).toBe(text)
  })
})
