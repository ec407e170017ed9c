import { describe, expect, it } from 'vitest'
import { ClipTokenizer, ConfigError, type Tensor, Tokenizer } from '../../lib/index.js'
import { fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { published } from '../text/helpers.js'

const file = await fixture<{ name: string; sentences: string[] }>('models/clip-tokens')
const load = () => ClipTokenizer.fromPretrained(fixturePath('models/clip-tokenizer'))

describe('ClipTokenizer', () => {
  it.each(file.cases)('$name: ids and mask of transformers', async ({ name, sentences }) => {
    const tokenizer = await load()
    const wanted = tensorsOf(file, name, 'out') as Record<string, Tensor>
    const { inputIds, attentionMask } = tokenizer.encode(sentences, name === 'short' ? { maxLength: 6 } : {})
    expect(inputIds.toArray()).toEqual(wanted.input_ids?.toArray())
    expect(attentionMask.toArray()).toEqual(wanted.attention_mask?.toArray())
  })

  it('fills up with the end of a text, and to the longest where that is enough', async () => {
    const tokenizer = await load()
    expect(tokenizer.maxLength).toBe(77)
    const { inputIds, attentionMask } = tokenizer.encode(['the dog', 'the dog barks'], { padding: 'longest' })
    expect(inputIds.shape).toEqual([2, 5])
    expect(Number(inputIds.select(0, 0).select(0, 4).item())).toBe(tokenizer.endTokenId)
    expect(attentionMask.sum([1] as never).toArray()).toEqual([4, 5])
    expect(Number(inputIds.select(0, 0).select(0, 0).item())).toBe(tokenizer.startTokenId)
    expect(tokenizer.decode(inputIds.select(0, 1).toArray() as number[])).toBe('the dog barks')
  })

  it('refuses what is none', async () => {
    const tokenizer = await load()
    expect(() => tokenizer.encode([])).toThrow(ConfigError)
    expect(() => tokenizer.encode('a', { maxLength: 1 })).toThrow(ConfigError)
    expect(() => tokenizer.encode('a', { pad: true } as never)).toThrow(/expected a known option, got 'pad'/)
    expect(() => new ClipTokenizer({} as Tokenizer)).toThrow(ConfigError)
    await expect(ClipTokenizer.fromPretrained('/nowhere/at/all')).rejects.toThrow(/no such folder/)
  })

  it('leaves nothing behind but what it returns', async () => {
    const tokenizer = await load()
    const before = await settledTensors()
    const { inputIds, attentionMask } = tokenizer.encode('the dog')
    inputIds.dispose()
    attentionMask.dispose()
    expect(await settledTensors()).toBe(before)
  })

  it.skipIf(published.clip === '')("reads OpenAI's file of merges (VOXTORCH_CLIP_MERGES)", async () => {
    const tokenizer = await ClipTokenizer.fromPretrained(published.clip)
    const { inputIds } = tokenizer.encode('A photo of a  Cat', { padding: 'longest' })
    expect(inputIds.toArray()).toEqual([[49406, 320, 1125, 539, 320, 2368, 49407]])
    expect(tokenizer.tokenizer).toBeInstanceOf(Tokenizer)
  })

  // What open_clip_torch 3.3.0's own tokenizer makes of them.
  it.skipIf(published.clip === '').each<[string, number[]]>([
    ["They're 25 dogs, aren't they?!", [889, 982, 273, 276, 3255, 267, 4318, 713, 889, 2835]],
    ['Über-naïve café — coöperate', [6522, 1516, 268, 1097, 35689, 563, 15304, 2005, 622, 7255, 703, 671]],
    ['日本語 and 😀🎉', [39121, 44353, 34002, 508, 537, 12832, 3986]],
    [
      'supercalifragilisticexpialidocious 3.14159',
      [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466, 274, 269, 272, 275, 272, 276, 280],
    ],
    ["it's the dog's I'll\n\tshe'd", [585, 568, 518, 1929, 568, 328, 1342, 1043, 1896]],
  ])("%j has open_clip's ids by OpenAI's merges (VOXTORCH_CLIP_MERGES)", async (text, ids) => {
    const tokenizer = await ClipTokenizer.fromPretrained(published.clip)
    const { inputIds } = tokenizer.encode(text, { padding: 'longest' })
    expect(inputIds.toArray()).toEqual([[49406, ...ids, 49407]])
  })
})
