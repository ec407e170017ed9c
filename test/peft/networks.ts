import { Conv1d, Embedding, functional, Linear, Module, Roberta, scope, type Tensor } from '../../lib/index.js'
import { type Fixture, fixture, tensorsOf } from '../helpers.js'
import { camelKeys } from '../models/networks.js'

/** The network of the same name in test/reference/peft_lora.py. */
export class Small extends Module {
  embed = new Embedding(20, 12, { paddingIdx: 0 })
  conv = new Conv1d(12, 10, 3, { stride: 2, padding: 1 })
  hidden = new Linear(10, 16)
  head = new Linear(16, 4)

  override forward(ids: Tensor): Tensor {
    return scope(() => {
      const x = this.conv.forward(this.embed.forward(ids).transpose(1, 2)).relu()
      return this.head.forward(functional.gelu(this.hidden.forward(x.transpose(1, 2)))).mean([1])
    })
  }
}

export interface Case {
  name: string
  lr: number
  decay: number
  config: Record<string, unknown>
}

export const files = { small: await fixture<Case>('peft/small'), roberta: await fixture<Case>('peft/roberta') }
export type Name = keyof typeof files

/** The network with the fixture's weights. */
export function network(name: Name): Small | Roberta {
  const file = files[name] as Fixture<Case>
  const first = file.cases[0] as Case
  const model = name === 'small' ? new Small() : new Roberta(camelKeys(first.config))
  model.loadStateDict(tensorsOf(file, first.name, 'param'))
  return model
}

/** [rows, 4] of Small, [rows, dim] of the pooler. */
export async function run(model: Small | Roberta, ids: Tensor): Promise<Tensor> {
  if (model instanceof Small) return model.forward(ids)
  return (await model.forward({ inputIds: ids })).poolerOutput as Tensor
}
