import { expect, test } from 'vitest'
import { DataLoader, padCollate, preprocessVideo, type Tensor } from '../../lib/index.js'

const url = new URL('./frames-dataset.mjs', import.meta.url)
const collate = padCollate({ frames: { elementShape: [4, 5, 3] }, label: {} })

test('frames come out of workers as they are, in uint8', async () => {
  const seen: Record<number, unknown[]> = {}
  for (const workers of [0, 2]) {
    const kept: unknown[] = []
    const loader = new DataLoader<{ frames: Uint8Array; label: number }, { frames: Tensor; label: Tensor }>(url, {
      batchSize: 3,
      workers,
      collate,
    })
    for await (const { frames, label } of loader) {
      expect(frames.dtype).toBe('uint8')
      expect(frames.shape.slice(1)).toEqual([2, 4, 5, 3])
      kept.push(frames.toArray(), label.toArray())
      expect((await preprocessVideo(frames.select(0, 0), { size: 4 })).shape).toEqual([3, 2, 4, 4])
    }
    seen[workers] = kept
  }
  expect(seen[2]).toEqual(seen[0])
  expect((seen[0]![4] as number[][][][][])[0]![1]![3]![4]![2]).toBe((6 * 31 + 119) % 256)
})
