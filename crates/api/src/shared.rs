//! Shapes that several kinds have: references, selectors, who may use what, retention.

use std::collections::BTreeMap;

use crate::forms::{label, member, name, span, words};
use crate::schema::{Rule, choice, int, list, map, object, one_of, record, text};

object! {
    /// Another object of ours.
    Ref {
        name: String = name().required(), "Its name.";
        namespace: Option<String> = label(), "Its namespace; by default that of the object that names it.";
    }
}

object! {
    /// A Secret in the namespace of the object that names it.
    SecretRef {
        secret: String = name().required(), "The name of the Secret.";
    }
}

object! {
    /// Where a key file lies: in a Secret, or with a key management service.
    KeySource {
        secret: Option<String> = name(), "The name of a Secret, in the namespace of the object that names it.";
        key: String = member().default("key"), "Which member of the Secret.";
        kms: Option<String> = text(1024).rule(Rule::new(
            "self.startsWith('unix:///')", "write the plugin's socket, such as unix:///var/run/kms.sock")),
            "The socket of a key management plugin.";
    }
    rules [Rule::new("has(self.secret) != has(self.kms)", "name a secret or a kms: one of them")]
}

object! {
    /// A member of a Secret.
    SecretKey {
        secret: String = name().required(), "The name of the Secret, in the namespace of the object that names it.";
        key: String = member().default("key"), "Which member of the Secret.";
    }
}

choice! {
    /// How labels are compared.
    Operator {
        In = "In", "One of the values.";
        NotIn = "NotIn", "None of the values, or no such label.";
        Exists = "Exists", "There is such a label.";
        DoesNotExist = "DoesNotExist", "There is no such label.";
    }
}

object! {
    /// One condition on labels.
    Expression {
        key: String = words(317).required(), "The label.";
        operator: Operator = one_of().required(), "How it is compared.";
        #[serde(default)]
        values: Vec<String> = list(text(63), 64), "With what.";
    }
    rules [Rule::new(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
        "In and NotIn take values, Exists and DoesNotExist take none",
    )]
}

object! {
    /// Objects by their labels, as Kubernetes has it; but an empty one selects nothing.
    Selector {
        #[serde(default)]
        match_labels: BTreeMap<String, String> = map(text(63), 64), "Labels and the values they have.";
        #[serde(default)]
        match_expressions: Vec<Expression> = list(record::<Expression>(), 64), "Conditions, all of which hold.";
    }
}

choice! {
    /// From which namespaces something may be used.
    AllowedFrom {
        Same = "Same", "From its own.";
        All = "All", "From all.";
        Selector = "Selector", "From those whose labels fit.";
    }
}

object! {
    /// Which namespaces may use something.
    AllowedNamespaces {
        from: AllowedFrom = one_of().default("Same"), "From which.";
        selector: Option<Selector> = record(), "Which namespaces, by their labels; with from: Selector.";
    }
    rules [Rule::new("(self.from == 'Selector') == has(self.selector)", "selector goes with from: Selector, and with nothing else")]
}

object! {
    /// Which points of a series stay.
    Retention {
        last: u32 = int(0, 10_000).default(0), "So many newest ones.";
        hourly: u32 = int(0, 10_000).default(0), "The newest one of so many hours.";
        daily: u32 = int(0, 10_000).default(0), "The newest one of so many days.";
        weekly: u32 = int(0, 10_000).default(0), "The newest one of so many weeks.";
        monthly: u32 = int(0, 10_000).default(0), "The newest one of so many months.";
        yearly: u32 = int(0, 10_000).default(0), "The newest one of so many years.";
        within: Option<String> = span(), "All that are younger.";
    }
    rules [Rule::new(
        "self.last + self.hourly + self.daily + self.weekly + self.monthly + self.yearly > 0 || has(self.within)",
        "a retention that keeps nothing is refused; leave it out to keep all",
    )]
}

choice! {
    /// How consistent a point is: P2 of the recovery point.
    Consistency {
        Fuzzy = "Fuzzy", "Files were read while they were written.";
        Crash = "Crash", "One atomic snapshot a volume.";
        Filesystem = "Filesystem", "File systems were frozen together.";
        Application = "Application", "Rules held every member.";
    }
}

choice! {
    /// What the group lock does beyond rules.
    Freeze {
        Auto = "Auto", "Freezes file systems where they can be, and nothing otherwise.";
        Never = "Never", "Freezes nothing.";
        Filesystem = "Filesystem", "Freezes file systems.";
        Processes = "Processes", "Holds the pods' processes.";
    }
}

choice! {
    /// The group of rules that are not ours.
    RuleGroup {
        Stork = "stork.libopenstorage.org", "Stork's.";
    }
}

choice! {
    /// What a rule of Stork's is for.
    Side {
        Pre = "Pre", "Before the cut.";
        Post = "Post", "After the cut.";
    }
}

choice! {
    /// A rule that comes with Holdfast.
    Recipe {
        Postgresql = "postgresql", "PostgreSQL.";
        Mysql = "mysql", "MySQL and MariaDB.";
        Mongodb = "mongodb", "MongoDB.";
        Redis = "redis", "Redis and Valkey.";
        Cassandra = "cassandra", "Cassandra.";
        Elasticsearch = "elasticsearch", "Elasticsearch and OpenSearch.";
        Etcd = "etcd", "etcd.";
        Rabbitmq = "rabbitmq", "RabbitMQ.";
        Kafka = "kafka", "Kafka.";
    }
}

object! {
    /// A rule that is used: an object, or a recipe.
    UsedRule {
        name: Option<String> = name(), "The name of a Rule, in the application's namespace.";
        group: Option<RuleGroup> = one_of(), "For a Rule of Stork's.";
        side: Option<Side> = one_of(), "What a Rule of Stork's is for.";
        recipe: Option<Recipe> = one_of(), "A rule that comes with Holdfast.";
    }
    rules [Rule::new(
        "has(self.name) != has(self.recipe) && has(self.side) == has(self.group) && (!has(self.group) || has(self.name))",
        "name a rule or a recipe: one of them; side and group are for a rule of Stork's, and go together",
    )]
}
