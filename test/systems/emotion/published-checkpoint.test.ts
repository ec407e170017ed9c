import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { saveSafetensors } from '../../../lib/files/index.js'
import { CheckpointError, LanguageBind, noGrad, ops, randn, type Tensor, tensor } from '../../../lib/index.js'
import { EMOTIONS, type EmotionClassifier, loadPublishedEmotion } from '../../../lib/systems/emotion/index.js'
import { difference, type Fixture, fixture } from '../../helpers.js'

// Files of torch.save and of peft: test/reference/languagebind_layouts.py.
const file = (await fixture<{ name: string; config: object }>('emotion/layouts')) as Fixture<{
  name: string
  config: object
}>
const configOf = (name: string) => file.cases.find((one) => one.name === name)?.config
const bytes = (name: string) => file.tensors[`${name}/file/bytes`]?.dataSync() as Uint8Array
const tensorsOf = (name: string, role: string) =>
  Object.fromEntries(
    Object.entries(file.tensors).flatMap(([key, value]) =>
      key.startsWith(`${name}/${role}/`) ? [[key.slice(name.length + role.length + 2), value as Tensor]] : [],
    ),
  )
const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-layouts-'))

/** A encoder's checkpoint, as it is published. */
function encoder(name = 'pytorch_model.bin', data: Uint8Array = bytes('tower')): string {
  const place = folder()
  writeFileSync(join(place, 'config.json'), JSON.stringify(configOf('tower')))
  writeFileSync(join(place, name), data)
  return place
}
const END = 8
/** Words as their lengths, in place of CLIP's vocabulary. */
const tokenizer = { endTokenId: END, encode: () => ({ inputIds: tensor([[7, 2, END, END, END]], { dtype: 'int64' }) }) }
const tokens = () => tokenizer.encode().inputIds
/** A classifier whose encoders read numbers. */
async function loaded(...values: Parameters<typeof loadPublishedEmotion>) {
  // The tokenizer of the folder would be CLIP's, of 1.5 MB.
  const made = LanguageBind.fromPretrained
  LanguageBind.fromPretrained = async (...given) => Object.assign(await made.apply(LanguageBind, given), { tokenizer })
  try {
    return await loadPublishedEmotion(...values)
  } finally {
    LanguageBind.fromPretrained = made
  }
}
const stateOf = (model: EmotionClassifier) => {
  const { model: bind } = model.ownEncoders.video as unknown as { model: LanguageBind }
  return bind.stateDict()
}

describe('a checkpoint of one encoder', () => {
  it('of torch.save has the values that torch saved, and the scale', async () => {
    const model = await LanguageBind.fromPretrained({ video: encoder() })
    const state = model.stateDict()
    const saved = Object.entries(tensorsOf('tower', 'param')).filter(([name]) => !name.endsWith('position_ids'))
    expect(Object.keys(state)).toHaveLength(saved.length)
    for (const [name, value] of saved) {
      const own = name === 'logit_scale' ? 'modality_scale.video' : name
        .replace('vision_model', 'modality_encoder.video').replace('text_model', 'modality_encoder.language')
        .replace('visual_projection', 'modality_proj.video').replace('text_projection', 'modality_proj.language') // biome-ignore format: one line
      expect(ops.equal(state[own] as Tensor, value), name).toBe(true)
    }
    expect(model.temperature('video')).toBeCloseTo(Math.exp(1.25), 5)
  })
})

describe('loadPublishedEmotion', () => {
  const published = (name = 'pytorch_model.bin', data: Uint8Array = bytes('wrapper')) => {
    const place = folder()
    writeFileSync(join(place, name), data)
    return place
  }

  it('reads what the Trainer saved of a wrapper, with scales from the encoder', async () => {
    const { model, fresh } = await loaded(published(), { video: encoder() })
    expect(fresh).toEqual([])
    expect(model.config).toMatchObject({ labels: [...EMOTIONS], fusion: 'concat', headBias: false, context: null })
    expect(model.modalities).toEqual(['video', 'text'])
    const wanted = tensorsOf('wrapper', 'param')
    for (const [name, value] of Object.entries(stateOf(model))) {
      if (name === 'modality_scale.video') expect(value.item()).toBe(1.25)
      else expect(ops.equal(value, wanted[`model.${name}`] as Tensor), name).toBe(true)
    }
    // [video · temperature, text] W^T
    const film = randn([1, 3, 2, 4, 4])
    const { video, text } = model.ownEncoders
    const logits = await noGrad(async () => {
      const seen = await (video as NonNullable<typeof video>).encode([film])
      const said = await (text as NonNullable<typeof text>).encode([tokens()])
      expect(Number(seen.norm().item())).toBeCloseTo(Math.exp(1.25), 4)
      expect(Number(said.norm().item())).toBeCloseTo(1, 5)
      return ops.cat([seen, said], 1).matmul((wanted['linear.weight'] as Tensor).t())
    })
    const yes = tensor([[1]]).ne(0)
    const output = await noGrad(() =>
      model.forward({
        ...{ mask: yes, speakers: tensor([[0]], { dtype: 'int64' }), present: { video: yes, text: yes } },
        inputs: { video: [film], text: [tokens()] },
      }),
    )
    expect(difference(output.logits.reshape([1, 7]), logits)).toBeLessThan(1e-5)
  })

  it('reads it as safetensors too, and by the name of the file', async () => {
    const place = folder()
    await saveSafetensors(join(place, 'model.safetensors'), tensorsOf('wrapper', 'param'))
    const { model } = await loaded(join(place, 'model.safetensors'), { video: encoder() })
    expect(ops.equal(model.head.linear.weight, tensorsOf('wrapper', 'param')['linear.weight'] as Tensor)).toBe(true)
  })

  it("reads peft's adapters and biases, over the weights of the encoder, and says that the head is new", async () => {
    const place = published('adapter_model.bin', bytes('adapters'))
    writeFileSync(join(place, 'adapter_config.json'), JSON.stringify(configOf('adapters')))
    const { model, fresh } = await loaded(place, { video: encoder() })
    expect(fresh).toEqual(['linear.weight'])
    const wanted = tensorsOf('adapters', 'out')
    for (const [name, value] of Object.entries(stateOf(model))) {
      if (name === 'modality_scale.video') continue
      expect(difference(value, wanted[`model.${name}`] as Tensor), name).toBeLessThan(1e-6)
    }
    const again = await loaded(place, { video: encoder() })
    expect(ops.equal(again.model.head.linear.weight, model.head.linear.weight)).toBe(true)
    const other = await loaded(place, { video: encoder() }, { seed: 7 })
    expect(ops.equal(other.model.head.linear.weight, model.head.linear.weight)).toBe(false)
    writeFileSync(join(place, 'adapter_config.json'), JSON.stringify({ ...configOf('adapters'), r: 4 }))
    await expect(loaded(place, { video: encoder() })).rejects.toThrow(/expected lora_A \[4, in\]/)
  })

  it('names what does not fit', async () => {
    const state = tensorsOf('wrapper', 'param')
    const saved = async (changed: Record<string, Tensor>) => {
      const place = folder()
      await saveSafetensors(join(place, 'model.safetensors'), changed)
      return place
    }
    const failure = async (changed: Record<string, Tensor>, options = {}) =>
      (await loaded(await saved(changed), { video: encoder() }, options).catch((error: Error) => error)) as Error
    const name = 'model.modality_encoder.video.pre_layrnorm.weight'
    const { [name]: lost, 'linear.weight': head, ...rest } = state as Record<string, Tensor>
    for (const [changed, what] of [
      [
        { ...rest, 'linear.weight': head },
        /got a file without 1 of them, such as model\.modality_encoder\.video\.pre_layrnorm/,
      ],
      [{ ...rest, [name]: lost }, /linear\.weight: expected a tensor, got none/],
      [{ ...state, [name]: randn([5]) }, /pre_layrnorm\.weight: expected shape \[4\], got \[5\]/],
      [
        { ...state, 'model.modality_encoder.video.more': randn([5]) },
        /video\.more: expected a tensor of LanguageBind's encoders/,
      ],
      [
        { ...state, 'linear_cause.weight': randn([2, 6]) },
        /expected tensors of experiments 1 to 6 .*got also linear_cause\.weight/,
      ],
      [{ 'linear.weight': head }, /expected tensors .*model\.modality_encoder.*got no tensor/],
      [{ ...state, 'model.modality_encoder.audio.x': randn([1]) }, /expected the base checkpoint of its audio encoder/],
    ] as [Record<string, Tensor>, RegExp][]) {
      const error = await failure(changed)
      expect(error).toBeInstanceOf(CheckpointError)
      expect(error.message).toMatch(what)
    }
    expect((await failure(state, { labels: ['a', 'b'] })).message).toMatch(
      /linear\.weight: expected shape \[2,6\], got \[7,6\]/,
    )
    await expect(loaded(folder(), { video: encoder() })).rejects.toThrow(/expected a file, or a folder with one of/)
  })
})
