import { expect, it } from 'vitest'
import { MediaCache } from '../../lib/generation/batching.js'
import { AudioLM } from '../../lib/index.js'
import { scope, zeros } from '../../lib/tensor/index.js'
import { fixturePath } from '../helpers.js'

it('values that were taken stay when the cache frees its own, and a closed one keeps none', () =>
  scope(() => {
    const cache = new MediaCache('test', 'limit', 60)
    cache.keep('a', zeros([10]).add(1))
    const taken = cache.get('a')
    cache.keep('b', zeros([10]))
    expect(cache.get('a')).toBeUndefined()
    expect(taken?.sum().item()).toBe(10)
    expect([cache.length, cache.bytes]).toEqual([1, 40])
    cache.close()
    cache.keep('c', zeros([10]))
    expect(cache.length).toBe(0)
  }))

it('constant positions of an encoder that trains in full stay frozen after setAdapter', async () => {
  const model = await AudioLM.fromPretrained(fixturePath('models/audio-lm-folder-qwen2_audio'))
  const peft = model.trainParts({ encoder: 'full', decoder: 'lora' }, { r: 2 })
  peft?.setAdapter('default')
  const named = new Map(model.namedParameters())
  expect(named.get('audio_tower.embed_positions.weight')?.requiresGrad).toBe(false)
  expect(named.get('audio_tower.conv1.weight')?.requiresGrad).toBe(true)
  model.dispose()
})
