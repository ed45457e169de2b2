// The driver's end of the conversation with `conformance --candidate 'cmd:...'` (docs/wire.md), without any package.
//
// An entry point is an async method; `await env.call(...)` asks for an environment call in the middle of it. However many
// operations are in flight, each waits for its own result.
"use strict";

/** Thrown where an operation is to be left. */
class Stop extends Error {}

/** A number as the suite reads it: beyond what a number holds exactly a BigInt, which is sent as a string. */
function toWire(value) {
  if (typeof value === "bigint") return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
  return Array.isArray(value) ? value.map(toWire) : value;
}

/** A number that came in; a string that stands for one becomes a BigInt. */
function fromWire(value) {
  if (typeof value === "string" && /^-?0x/.test(value)) {
    return value[0] === "-" ? -BigInt(value.slice(1)) : BigInt(value);
  }
  return value;
}

/** What one operation asks its environment with. */
class Env {
  constructor(conversation, op) {
    this.conversation = conversation;
    this.op = op;
  }

  /** Make an environment call and wait for its result. */
  call(name, ...args) {
    return new Promise((resolve, reject) => {
      this.conversation.waiting.set(this.op, { resolve, reject });
      this.conversation.say({ type: "call", op: this.op, name, args: args.map(toWire) });
    });
  }
}

/** One process's conversation: instances of a driver, and the operations that wait. */
class Conversation {
  constructor(Driver) {
    this.Driver = Driver;
    this.instances = new Map();
    this.waiting = new Map();
  }

  say(message) {
    process.stdout.write(JSON.stringify(message) + "\n");
  }

  hear(message) {
    switch (message.type) {
      case "hello":
        return this.say({ type: "hello", protocol: 1, ...this.Driver.hello });
      case "create":
        this.instances.set(message.instance, new this.Driver());
        return this.say({ type: "return", op: message.op, value: null });
      case "destroy":
        this.instances.delete(message.instance);
        return this.say({ type: "return", op: message.op, value: null });
      case "enter":
        return this.enter(message);
      case "result":
        return this.taken(message.op).resolve(fromWire(message.value));
      case "stop":
        return this.taken(message.op).reject(new Stop());
      default:
        throw new Error(`unknown message ${message.type}`);
    }
  }

  taken(op) {
    const waiting = this.waiting.get(op);
    this.waiting.delete(op);
    return waiting;
  }

  async enter({ op, instance, name, args }) {
    try {
      const value = await this.instances.get(instance)[name](new Env(this, op), ...args.map(fromWire));
      this.say({ type: "return", op, value: toWire(value ?? null) });
    } catch (error) {
      if (error instanceof Stop) this.say({ type: "stopped", op });
      else this.say({ type: "raise", op, error: `${error.name}: ${error.message}` });
    }
  }
}

/** Serve a class of drivers until nobody asks any more. */
function serve(Driver) {
  const conversation = new Conversation(Driver);
  let rest = "";
  process.stdin.setEncoding("utf8");
  process.stdin.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) conversation.hear(JSON.parse(line));
  });
}

module.exports = { serve };
