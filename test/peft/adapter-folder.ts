import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { saveSafetensors, type Tensor } from '../../lib/index.js'

const made: string[] = []
afterAll(() => {
  for (const folder of made) rmSync(folder, { recursive: true, force: true })
})

export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-peft-'))
  made.push(folder)
  return folder
}

/** A directory as peft saves an adapter, of what a fixture holds. */
export async function adapterFolder(config: object, tensors: Record<string, Tensor>): Promise<string> {
  const folder = temporary()
  writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify({ peft_type: 'LORA', ...config }))
  await saveSafetensors(join(folder, 'adapter_model.safetensors'), tensors)
  return folder
}
