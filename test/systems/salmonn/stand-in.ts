import * as vt from '../../../lib/index.js'
import type * as salmonn from '../../../lib/systems/salmonn/index.js'

class Projection extends vt.Module {
  weight = new vt.Parameter(vt.ones([4, 4]))
  lora_A = new vt.Parameter(vt.full([2, 4], 0.1, { dtype: 'float32' }))
  lora_B = new vt.Parameter(vt.zeros([4, 2]))
}

class Language extends vt.Module {
  q_proj = new Projection()
}

/**
 * Stands in for SALMONN where only what is around it is tested: hears how loud a prompt's clips are and says one of two
 * words. Its parts have the published names.
 */
export class StandIn extends vt.Module {
  readonly config = {}
  beats = new vt.Linear(4, 4)
  speech_query_tokens = new vt.Parameter(vt.zeros([1, 1, 8]))
  ln_speech = new vt.LayerNorm([8])
  speech_Qformer = new vt.Linear(1, 8)
  speech_llama_proj = new vt.Linear(8, 2)
  llama_model = new Language()
  /** A loss at this call is NaN. */
  badCall = -1
  calls = 0

  constructor(readonly words: readonly [string, string] = ['soft', 'loud']) {
    super()
  }

  logits(prompts: readonly salmonn.SalmonnPrompt[]): vt.Tensor {
    const loud = prompts.map(({ clips }) => Math.max(...clips.map((clip) => Math.abs(clip[100] ?? 0))))
    return vt.scope(() => {
      const heard = this.speech_Qformer.forward(vt.tensor(loud, { dtype: 'float32' }).unsqueeze(-1).mul(4))
      return this.speech_llama_proj.forward(
        this.ln_speech.forward(heard.tanh().add(this.speech_query_tokens.flatten())),
      )
    })
  }

  override async forward({ prompts, targets = [] }: salmonn.SalmonnBatch): Promise<salmonn.SalmonnForward> {
    const labels = targets.map((target) => BigInt(this.words.indexOf(target.split('\n')[0] as string)))
    if (this.training) this.calls += 1
    const bad = this.training && this.calls === this.badCall
    const logits = this.logits(prompts)
    const said = (logits.argmax(-1).toArray() as (number | bigint)[]).map(Number)
    const loss = vt.functional.crossEntropy(logits, vt.tensor(BigInt64Array.from(labels)))
    return {
      loss: bad ? loss.mul(Number.NaN) : loss,
      correct: said.filter((word, i) => BigInt(word) === labels[i]).length,
      total: targets.length,
    }
  }

  async generate(prompts: salmonn.SalmonnPrompt[]): Promise<{ texts: string[]; tokens: number[][] }> {
    const said = (this.logits(prompts).argmax(-1).toArray() as (number | bigint)[]).map(Number)
    const texts = said.map(
      (word) => `${this.words[word]}\n情绪序列: ${word === 0 ? 'neutral -> sad' : 'neutral -> anger'}`,
    )
    return { texts, tokens: said.map((word) => [word]) }
  }
}
