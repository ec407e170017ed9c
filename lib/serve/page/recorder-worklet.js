// Audio worklet: sends the samples of the microphone to the page in pieces of 0.1 s.

class Recorder extends AudioWorkletProcessor {
  #parts = []
  #length = 0

  process([input]) {
    if (input.length > 0) {
      const mono = new Float32Array(input[0].length)
      for (const channel of input) for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / input.length
      this.#parts.push(mono)
      this.#length += mono.length
    }
    if (this.#length >= sampleRate / 10) {
      const whole = new Float32Array(this.#length)
      let at = 0
      for (const part of this.#parts) {
        whole.set(part, at)
        at += part.length
      }
      this.port.postMessage(whole, [whole.buffer])
      this.#parts = []
      this.#length = 0
    }
    return true
  }
}

registerProcessor('recorder', Recorder)
